"""What the DaemonSet benchmark compares and counts: the controllers as processes, the DaemonSets, the audit log."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from scheduler_contenders import QPS, Contender
from scheduler_lab import NAMESPACE

from nodewright.controlplane import configs
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.certificates import CLUSTER_CA
from nodewright.controlplane.cluster import CONTROLLER_MANAGER, LocalCluster
from nodewright.kube.client import Client
from nodewright.kube.resources import APPS_DAEMONSETS, CLUSTERROLEBINDINGS, DAEMONSETS, SERVICEACCOUNTS, Resource

OURS, THEIRS = "nodewright", CONTROLLER_MANAGER
# Whose requests are counted: the identities that the controllers use.
OPERATOR = "system:serviceaccount:kube-system:nodewright-operator"
DAEMONSET_CONTROLLER = "system:serviceaccount:kube-system:daemon-set-controller"
ACCOUNT_CONFIG = "operator.conf"
USERS = {OURS: OPERATOR, THEIRS: DAEMONSET_CONTROLLER}

Object = dict[str, Any]


def kube_controller_manager(binary: Path, cluster: LocalCluster) -> list[str]:
    """Upstream's DaemonSet controller alone: its defaults but for the client's rate limit and the Lease."""
    return [
        str(binary),
        *("--kubeconfig", str(cluster.layout.kubeconfig("controller-manager"))),
        "--controllers=daemonset-controller",
        "--use-service-account-credentials",  # as everywhere; RBAC gives the rights to the controller's own account
        *(f"--kube-api-qps={QPS}", f"--kube-api-burst={QPS}"),
        "--leader-elect=false",
        "--secure-port=0",
    ]


async def make_account(cluster: LocalCluster, client: Client, folder: Path) -> None:
    """A service account for ours, as in a cluster, and its kubeconfig below `folder`.

    For with a client certificate, each request would cost the API server a third of a Pod's creation more.
    """
    *_, namespace, name = OPERATOR.split(":")
    account = {"name": name, "namespace": namespace}
    await client.create(SERVICEACCOUNTS, {"metadata": account})
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "nodewright:operator"},
        "subjects": [{"kind": "ServiceAccount", **account}],
    }
    await client.create(CLUSTERROLEBINDINGS, binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    made = await client.create(SERVICEACCOUNTS, asked, namespace, name=name, subresource="token")
    authority = str(cluster.layout.pki / f"{CLUSTER_CA}.crt")
    config = {
        "clusters": [{"name": "bench", "cluster": {"server": cluster.server, "certificate-authority": authority}}],
        "users": [{"name": name, "user": {"token": made["status"]["token"]}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": name}}],
        "current-context": "bench",
    }
    (folder / ACCOUNT_CONFIG).write_bytes(msgspec.json.encode(config))


def nodewright(folder: Path, *, own_kind: bool) -> list[str]:
    """Ours, with its defaults, and without waiting for a Lease: both kinds served, or our own alone."""
    kinds = ["daemonset"] if own_kind else ["daemonset,apps-daemonset", "--take-over", "apps/v1"]
    return [
        *(sys.executable, "-m", "nodewright.cli.main", "operator"),
        *("--kubeconfig", str(folder / ACCOUNT_CONFIG)),
        *("--no-leader-elect", "--controllers", *kinds),
    ]


def contenders(only: str | None, *, own_kind: bool) -> list[tuple[Contender, Resource]]:
    """The controllers to compare, each with the kind that it serves, in the order of their turns."""
    found = []
    if only != OURS:
        binary = Assets().obtain([THEIRS])[THEIRS]
        theirs = Contender(THEIRS, lambda cluster, _folder, _port: kube_controller_manager(binary, cluster), "https")
        found.append((theirs, APPS_DAEMONSETS))
    if only != THEIRS:
        ours = Contender(OURS, lambda _cluster, folder, _port: nodewright(folder, own_kind=own_kind), "http")
        found.append((ours, DAEMONSETS if own_kind else APPS_DAEMONSETS))
    return found


def daemonset(name: str, *, image: str = "pause:1", node_selector: dict[str, str] | None = None) -> Object:
    """A DaemonSet of the size that real ones have; its template without what a rollout would not change anyway."""
    labels = {"app": name}
    container = {
        "name": "main",
        "image": image,
        "args": ["--config=/etc/agent/config.yaml", "--log-level=info"],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
        "volumeMounts": [{"name": "run", "mountPath": "/run/agent"}],
    }
    spec: Object = {
        "containers": [container],
        "volumes": [{"name": "run", "hostPath": {"path": "/run/agent", "type": "DirectoryOrCreate"}}],
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
    }
    if node_selector:
        spec["nodeSelector"] = node_selector
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def count_requests(cluster: LocalCluster) -> None:
    """Let the audit log tell all requests of the controllers, and nothing else; before the API server starts."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [{"level": "Metadata", "users": list(USERS.values())}, {"level": "None"}],
    }
    configs.audit_policy_file(cluster.layout).write_bytes(msgspec.json.encode(policy))


class Target(msgspec.Struct):
    """What a request was about."""

    resource: str = ""
    subresource: str = ""


class Entry(msgspec.Struct, rename="camel"):
    """A line of the audit log."""

    verb: str
    object_ref: Target = msgspec.field(default_factory=Target)


class Requests:
    """Reads on in the audit log: what the controllers have asked since the last look."""

    def __init__(self, cluster: LocalCluster) -> None:
        """Count from now on."""
        self._path = cluster.layout.audit_log
        self._at = self.size()
        self._decoder = msgspec.json.Decoder(Entry)

    def size(self) -> int:
        """How long the log is; it grows with each request."""
        return self._path.stat().st_size if self._path.exists() else 0

    def since(self) -> dict[str, int]:
        """`VERB RESOURCE[/SUBRESOURCE]` -> how often, without the watches, the most frequent first."""
        found: Counter[str] = Counter()
        with self._path.open("rb") as log:
            log.seek(self._at)
            for line in log:
                entry = self._decoder.decode(line)
                if entry.verb != "watch":
                    target = entry.object_ref
                    found[f"{entry.verb} {'/'.join(filter(None, (target.resource, target.subresource)))}"] += 1
            self._at = log.tell()
        return dict(found.most_common())
