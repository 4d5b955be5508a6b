"""Static Pods from files, their mirrors in a real API server, and an agent without any."""

import base64
import contextlib
import json
import os
import re
import signal
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from nodewright.controlplane.cluster import LocalCluster
from nodewright_agent.pods.static.defaults import defaulted
from support.agent_node import IMAGE, AgentNode, wait_until
from support.pod_lab import STAY, PodLab, main_status, restarts, walk_cgroups

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]
MIRROR = "kubernetes.io/config.mirror"

RICH: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "rich"},
    "spec": {
        "hostNetwork": True,
        "automountServiceAccountToken": False,
        "nodeName": "somewhere",
        "containers": [
            {
                "name": "a",
                "image": "reg.test:5000/a",
                "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                "env": [
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "value": "x"},
                ],
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 3},
                "startupProbe": {"grpc": {"port": 80}},
                "lifecycle": {"preStop": {"httpGet": {"port": 80}}, "postStart": {"exec": {"command": ["true"]}}},
                "securityContext": {"runAsUser": 1},
            },
            {"name": "b", "image": "b:1.0", "imagePullPolicy": "Always"},
            {"name": "c", "image": "b@sha256:" + "0" * 64, "resources": {"requests": {"memory": "8Mi"}}},
        ],
        "initContainers": [{"name": "i", "image": "i:latest", "restartPolicy": "Always"}],
        "volumes": [
            {"name": "empty"},
            {"name": "host", "hostPath": {"path": "/x"}},
            {"name": "fields", "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {
                "name": "all",
                "projected": {
                    "sources": [
                        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                        {"serviceAccountToken": {"path": "t"}},
                        {"secret": {"name": "s"}},
                    ]
                },
            },
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "map", "configMap": {"name": "m"}},
            {"name": "image", "image": {"reference": "x:1"}},
        ],
    },
}
BY_ADMISSION = ("priority", "preemptionPolicy", "serviceAccount", "serviceAccountName", "tolerations")


def pruned(value: Any) -> Any:
    """Without what the API server writes only because Go does."""
    if isinstance(value, dict):
        kept = {key: pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, {}, [])}
    return [pruned(item) for item in value] if isinstance(value, list) else value


class StaticLab:
    """A node with a folder of static Pods."""

    def __init__(self, lab: PodLab, folder: Path) -> None:
        self.lab, self.node, self.folder = lab, lab.node, folder

    def write(self, name: str, command: list[str] | None = None, **spec: Any) -> str:
        """Write a manifest as kubeadm does; return the mirror's name."""
        container = {"name": "main", "image": IMAGE, "command": STAY if command is None else command}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.lab.namespace, "labels": {"app": name}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
        }
        temporary = self.folder / f".{name}.new"
        temporary.write_text(json.dumps(body))
        os.replace(temporary, self.folder / f"{name}.yaml")
        return f"{name}-{self.node.name}"

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.yaml").unlink()

    def ready(self, mirror: str, besides: str = "") -> Any:
        def is_ready(pod: Any) -> bool:
            statuses = pod.status.container_statuses
            return pod.metadata.uid != besides and bool(statuses) and statuses[0].ready

        return self.lab.wait(mirror, f"{mirror} is ready", is_ready)

    def running(self) -> int:
        """How many containers have processes."""
        found = set()
        for path, _, _ in walk_cgroups(self.node.cgroup_root):
            with contextlib.suppress(OSError):  # it was removed meanwhile
                if Path(path).parent.name.startswith("pod") and (Path(path) / "cgroup.procs").read_text().split():
                    found.add(Path(path).name)
        return len(found)


@pytest.fixture
def static(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode], tmp_path: Path) -> Iterator[StaticLab]:
    folder = tmp_path / "manifests"
    folder.mkdir()
    node = make_node(static_pod_path=str(folder))
    node.start()
    try:
        with PodLab(lab_cluster, node) as lab:
            lab.wait_ready()
            yield StaticLab(lab, folder)
            for path in folder.iterdir():
                path.unlink()
    finally:
        node.close()


def kubelet_pods(cluster: LocalCluster, node: AgentNode, directory: Path) -> list[dict[str, Any]]:
    """What the kubelet API shows to an administrator; nothing while it does not listen."""
    context = ssl.create_default_context(cafile=str(cluster.layout.pki / "ca.crt"))
    context.check_hostname = False
    user = yaml.safe_load(Path(cluster.kubeconfig).read_text())["users"][0]["user"]
    pem = directory / "admin.pem"
    pem.write_bytes(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
    context.load_cert_chain(pem)
    try:
        with urllib.request.urlopen(
            f"https://127.0.0.1:{node.settings['port']}/pods", context=context, timeout=5
        ) as got:
            return list(json.load(got)["items"])
    except OSError:
        return []


def container_id(pod: Any) -> str:
    return str(main_status(pod).container_id)


def test_defaults_are_those_of_the_api_server(lab: PodLab) -> None:
    answer = lab.api.create_namespaced_pod(lab.namespace, RICH, dry_run="All", _preload_content=False)
    theirs = json.loads(answer.data)
    ours = pruned(defaulted(RICH)["spec"])
    assert ours == {key: value for key, value in pruned(theirs["spec"]).items() if key not in BY_ADMISSION}


def test_a_static_pods_life(static: StaticLab, tmp_path: Path) -> None:
    lab, node = static.lab, static.node
    name = static.write("web", ["/bin/sh", "-c", "echo hello; trap '' TERM; sleep 1000000 & wait; wait"])
    first = static.ready(name)
    uid = first.metadata.annotations[MIRROR]
    assert first.metadata.annotations["kubernetes.io/config.source"] == "file"
    assert [(o.kind, o.name, o.controller) for o in first.metadata.owner_references] == [("Node", node.name, True)]
    assert first.metadata.labels == {"app": "web"}
    assert first.status.pod_ip
    assert first.status.observed_generation is None
    assert lab.logs(name) == "hello\n"
    assert (node.state / "pods" / uid).is_dir()
    assert [pod["metadata"]["uid"] for pod in kubelet_pods(lab.cluster, node, tmp_path)] == [uid]

    for grace in (0, 30):  # whoever deletes the mirror gets another, and the container does not notice
        before = lab.get(name)
        lab.delete(name, grace=grace)
        again = static.ready(name, besides=before.metadata.uid)
        assert container_id(again) == container_id(first)

    before = lab.get(name)
    static.write("web", ["/bin/sh", "-c", "exit 3"])  # changed twice while the old one ends: the last one counts
    static.write("web")
    changed = static.ready(name, besides=before.metadata.uid)
    assert changed.metadata.annotations[MIRROR] != uid
    assert main_status(changed).restart_count == 0
    assert lab.get(name).spec.containers[0].command == STAY
    wait_until("nothing is left of the old one", lambda: not (node.state / "pods" / uid).exists())

    (static.folder / "web.yaml").rename(static.folder.parent / "kept")
    os.link(static.folder.parent / "kept", static.folder / "web.yaml")  # gone and back, unchanged
    lab.wait(name, "one restart is counted", lambda pod: restarts(pod) == 1 and main_status(pod).ready)
    static.remove("web")
    lab.wait_gone(name)
    wait_until("nothing is left", lambda: not lab.on_host())


def test_bad_files_are_told_at_the_node_and_disturb_nobody(static: StaticLab) -> None:
    lab = static.lab
    name = static.write("good")
    before = static.ready(name)
    (static.folder / "bad.yaml").write_text("kind: [")
    static.write("reads-secrets", volumes=[{"name": "v", "secret": {"secretName": "x"}}])

    def events() -> list[str]:
        found = lab.api.list_namespaced_event("default", field_selector=f"involvedObject.name={static.node.name}")
        return [event.message for event in found.items if event.reason == "FailedValidation"]

    wait_until("both are told", lambda: len(events()) == 2)
    told = sorted(events())
    assert told[0].startswith(f"Could not process manifest file {static.folder}/bad.yaml: couldn't parse as pod")
    assert told[1].endswith("reads-secrets.yaml: static pods may not reference secrets")
    after = lab.get(name)
    assert (container_id(after), after.metadata.uid) == (container_id(before), before.metadata.uid)


def test_a_killed_agent_takes_its_static_pods_up_again(static: StaticLab) -> None:
    lab, node = static.lab, static.node
    names = {name: static.write(name) for name in ("stays", "unrecorded", "removed", "changed")}
    before = {name: static.ready(mirror) for name, mirror in names.items()}
    node.stop(signal.SIGKILL)
    uid = before["unrecorded"].metadata.annotations[MIRROR]
    (node.state / "pods" / uid / "pod.json").unlink()
    static.remove("removed")
    static.write("changed", hostNetwork=True)
    node.start()
    changed = static.ready(names["changed"], besides=before["changed"].metadata.uid)
    lab.wait_gone(names["removed"])
    for name in ("stays", "unrecorded"):
        after = static.ready(names[name])
        assert container_id(after) == container_id(before[name]), name
        assert after.metadata.uid == before[name].metadata.uid
        assert main_status(after).restart_count == 0
    assert changed.spec.host_network
    assert static.running() == 3


@pytest.mark.parametrize("point", ["sandbox.pinned", "create.done", "start.done"])
def test_killed_while_a_static_pod_starts(static: StaticLab, point: str) -> None:
    node = static.node
    node.stop()
    node.start(environment={"NODEWRIGHT_FAILPOINTS": f"{point}=exit"})
    name = static.write("once")
    assert node.process is not None
    assert node.process.wait(20) == 86
    node.process = None
    node.start()
    static.ready(name)
    assert static.running() == 1


def test_an_orphaned_mirror_is_removed(static: StaticLab) -> None:
    """One that an agent left behind whose file, and everything else, is gone."""
    lab = static.lab
    lab.create("left-over", annotations={MIRROR: "0123"})
    lab.wait_gone("left-over")
    assert static.running() == 0


def test_a_static_pod_of_a_missing_namespace_runs_all_the_same(static: StaticLab) -> None:
    lab = static.lab
    real, lab.namespace = lab.namespace, f"{lab.namespace}-later"
    try:
        name = static.write("early")
        wait_until("it runs", lambda: static.running() == 1)
        lab.api.create_namespace({"metadata": {"name": lab.namespace}})
        static.ready(name)
    finally:
        static.remove("early")
        wait_until("it is gone", lambda: not lab.on_host())
        lab.namespace = real


def test_static_pods_do_not_wait_for_the_api_server(static: StaticLab, tmp_path: Path) -> None:
    """An agent that starts while it is away: the Pod runs; its mirror comes when the API server does."""
    node, good = static.node, static.node.settings["kubeconfig"]
    node.stop()
    away = tmp_path / "kubeconfig"
    away.write_text(re.sub(r"https://[^\s\"]+", "https://127.0.0.1:1", Path(good).read_text()))
    node.settings["kubeconfig"] = str(away)
    name = static.write("early")
    node.start()
    wait_until("it runs", lambda: static.running() == 1)
    assert static.lab.get(name) is None
    node.stop(signal.SIGKILL)
    node.settings["kubeconfig"] = good
    node.start()
    static.ready(name)
    assert static.running() == 1


def test_standalone(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode], tmp_path: Path) -> None:
    """No API server: Pods run, restart, are seen through the kubelet API, and live through a kill."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    node = make_node(static_pod_path=str(folder), standalone=True, kubeconfig="")

    def ids() -> list[str]:
        statuses = [
            status
            for pod in kubelet_pods(lab_cluster, node, tmp_path)
            for status in pod["status"].get("containerStatuses", [])
        ]
        return [status["containerID"] for status in statuses if status.get("ready")]

    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "command": STAY}],
        },
    }
    (folder / "alone.json").write_text(json.dumps(manifest))
    node.start()
    try:
        (before,) = wait_until("the Pod is ready", ids)
        (pod,) = kubelet_pods(lab_cluster, node, tmp_path)
        assert pod["metadata"]["name"] == f"alone-{node.name}"
        assert pod["status"]["podIP"].startswith("10.222.7.")
        node.stop(signal.SIGKILL)
        node.start()
        assert wait_until("it is ready again", ids) == [before]
        (folder / "alone.json").unlink()
        wait_until("it is gone", lambda: not ids() and not list((node.run / "sb").glob("*")))
        assert "Traceback" not in node.text()
        with pytest.raises(ApiException):
            PodLab(lab_cluster, node).api.read_node(node.name)
    finally:
        node.close()
