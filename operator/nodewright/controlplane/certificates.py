"""Which certificates a local cluster has, for whom, and the kubeconfigs made of them.

Three authorities, so that each proves one thing: the cluster's (users, nodes, kube-apiserver), etcd's own (only
kube-apiserver holds a client certificate of it), and the front proxy's (who may name the user of a request).
Only the admin kubeconfig is in the group system:masters, which no RBAC rule can restrict: keep it to yourself.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from nodewright.controlplane import pki
from nodewright.controlplane.files import make_dir, write_if_changed
from nodewright.controlplane.layout import Layout
from nodewright.controlplane.pki import LeafSpec, Pair, Subject
from nodewright.controlplane.slots import KUBERNETES_SERVICE_IP, NodeHost
from nodewright.controlplane.state import LOOPBACK, ClusterState

CLUSTER_CA = "ca"
ETCD_CA = "etcd-ca"
FRONT_PROXY_CA = "front-proxy-ca"
AUTHORITIES = {
    CLUSTER_CA: "nodewright-ca",
    ETCD_CA: "nodewright-etcd-ca",
    FRONT_PROXY_CA: "nodewright-front-proxy-ca",
}

KUBELET_CLIENT_USER = "kube-apiserver-kubelet-client"
OPERATOR_USER = "system:nodewright:operator"
SCHEDULER_USER = "system:nodewright:scheduler"
FRONT_PROXY_USER = "front-proxy-client"

# kubeconfig name -> subject of its client certificate
USERS = {
    "admin": Subject("kubernetes-admin", ("system:masters",)),
    "controller-manager": Subject("system:kube-controller-manager"),
    "kube-scheduler": Subject("system:kube-scheduler"),
    "scheduler": Subject(SCHEDULER_USER),
    "operator": Subject(OPERATOR_USER),
}


def leaves(state: ClusterState) -> dict[str, tuple[str, LeafSpec]]:
    """File name -> (authority, certificate) for everything but nodes."""
    local = ("localhost", LOOPBACK)
    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    addresses = (KUBERNETES_SERVICE_IP, state.ranges.gateway)
    specs = {
        "apiserver": (CLUSTER_CA, LeafSpec(Subject("kube-apiserver"), server=True, sans=service + local + addresses)),
        "apiserver-kubelet-client": (CLUSTER_CA, LeafSpec(Subject(KUBELET_CLIENT_USER), client=True)),
        "controller-manager-server": (
            CLUSTER_CA,
            LeafSpec(Subject("kube-controller-manager"), server=True, sans=local),
        ),
        "front-proxy-client": (FRONT_PROXY_CA, LeafSpec(Subject(FRONT_PROXY_USER), client=True)),
        "etcd-server": (ETCD_CA, LeafSpec(Subject("etcd"), client=True, server=True, sans=local)),
        "etcd-peer": (ETCD_CA, LeafSpec(Subject("etcd"), client=True, server=True, sans=local)),
        "apiserver-etcd-client": (ETCD_CA, LeafSpec(Subject("kube-apiserver-etcd-client"), client=True)),
    }
    specs.update({f"user-{user}": (CLUSTER_CA, LeafSpec(who, client=True)) for user, who in USERS.items()})
    return specs


def node_leaves(host: NodeHost) -> dict[str, LeafSpec]:
    """File name -> certificate of a local node host: its client identity and kubelet's serving certificate."""
    subject = Subject(f"system:node:{host.name}", ("system:nodes",))
    return {
        f"node-{host.name}-client": LeafSpec(subject, client=True),
        f"node-{host.name}-server": LeafSpec(subject, server=True, sans=(host.name, host.address)),
    }


@dataclass
class Certificates:
    """Makes and renews the files below `layout.pki` and `layout.kubeconfig`."""

    layout: Layout
    state: ClusterState
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def pair(self, name: str) -> Pair:
        """Paths of the certificate and key `name`."""
        return Pair.at(self.layout.pki, name)

    def ensure(self) -> set[str]:
        """Make what is absent, damaged or near expiry; return the names that were made."""
        make_dir(self.layout.pki, 0o700)
        make_dir(self.layout.kubeconfig("admin").parent, 0o700)
        made: set[str] = set()
        authorities = {}
        for name, common_name in AUTHORITIES.items():
            authorities[name], new = pki.ensure_authority(self.pair(name), common_name, self.now)
            made |= {name} if new else set()
        for name, (authority, spec) in leaves(self.state).items():
            if pki.ensure_leaf(self.pair(name), spec, authorities[authority], self.now):
                made.add(name)
        if pki.ensure_signing_keys(self.layout.pki / "sa.key", self.layout.pki / "sa.pub"):
            made.add("sa")
        for user in USERS:
            self._kubeconfig(user, f"user-{user}")
        return made

    def ensure_nodes(self, hosts: Iterable[NodeHost]) -> set[str]:
        """Client and serving certificates and the kubeconfig `node-<name>` of each host; names that were made.

        This is what a TLS bootstrap by CSR ends in. The local cluster signs directly, having the authority at hand.
        """
        authority, _ = pki.ensure_authority(self.pair(CLUSTER_CA), AUTHORITIES[CLUSTER_CA], self.now)
        made = set()
        for host in hosts:
            for name, spec in node_leaves(host).items():
                if pki.ensure_leaf(self.pair(name), spec, authority, self.now):
                    made.add(name)
            self._kubeconfig(f"node-{host.name}", f"node-{host.name}-client")
        return made

    def _kubeconfig(self, user: str, leaf: str) -> None:
        pair = self.pair(leaf)
        content = kubeconfig(
            self.state.name, self.state.server, user, self.pair(CLUSTER_CA).cert.read_bytes(), *_contents(pair)
        )
        write_if_changed(self.layout.kubeconfig(user), content, 0o600)


def _contents(pair: Pair) -> tuple[bytes, bytes]:
    return pair.cert.read_bytes(), pair.key.read_bytes()


def kubeconfig(cluster: str, server: str, user: str, ca: bytes, cert: bytes, key: bytes) -> bytes:
    """A kubeconfig with everything inline, as JSON (which is YAML too): it can be copied to another machine."""

    def inline(data: bytes) -> str:
        return base64.b64encode(data).decode()

    name = f"nodewright-{cluster}"
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": inline(ca)}}],
        "users": [
            {
                "name": f"{name}-{user}",
                "user": {"client-certificate-data": inline(cert), "client-key-data": inline(key)},
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"{name}-{user}"}}],
        "current-context": name,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
