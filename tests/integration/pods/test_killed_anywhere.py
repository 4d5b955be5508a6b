"""An agent is killed at every failpoint that its source names; Pods reach their ends, nothing is lost, nothing left.

All failpoints are armed at once: the agent dies at the first that it comes to, the next one lacks that one, and so on,
while Pods live through everything that a Pod can live through. A new failpoint is tested by being there.
"""

import gzip
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodewright.controlplane.cluster import LocalCluster
from support.agent_node import IMAGE, AgentNode, wait_until
from support.agent_nursery import MortalNode, Nursery, known_failpoints
from support.host_state import difference, mentioned, network
from support.pod_lab import PodLab, main_status, walk_cgroups

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.timeout(600)]

PATIENCE = 60.0
"""Seconds from one death, or the beginning, to the next, or the end."""
CHATTY = (
    "echo main >> /out/starts; i=0; trap 'echo last; exit 0' TERM; "
    'while :; do echo "line $i {0}"; i=$((i+1)); sleep 0.05; done'
)
SIDE = "echo side >> /out/starts; trap 'exit 0' TERM; sleep 1000000 & wait $!"
JAILED = "cat /proc/self/uid_map > /out/map; trap 'exit 0' TERM; sleep 1000000 & wait $!"
OLD, NEW = {"a": "1", "gone": "1"}, {"a": "2", "new": "2"}
"""What the ConfigMap has, and what it is changed to."""
COUNTED = "echo run >> /data/runs; [ $(wc -l < /data/runs) -gt 3 ] && exit 0; exit 3"


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": shell(script), **more}


def outside(path: Path) -> dict[str, Any]:
    """A volume that the test reads."""
    return {"name": "out", "hostPath": {"path": str(path), "type": "DirectoryOrCreate"}}


def hook(script: str) -> dict[str, Any]:
    return {"exec": {"command": shell(script)}}


def everything(out: Path, port: int) -> dict[str, Any]:
    """A Pod with all that is made on a host for Pods."""
    mounts = [
        {"name": "data", "mountPath": "/data"},
        {"name": "data", "mountPath": "/part", "subPath": "part"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "settings", "mountPath": "/settings"},
        {"name": "out", "mountPath": "/out"},
    ]
    cpu = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
    main = container(
        "main",
        CHATTY.format("x" * 100),
        lifecycle={
            "postStart": hook("echo hook >> /out/post"),
            "preStop": hook("echo hook >> /out/pre"),
        },
        ports=[{"containerPort": 80, "hostPort": port}],
        volumeMounts=mounts,
        resources=cpu,
    )
    return {
        "containers": [main],
        "initContainers": [
            container("init", "echo ran >> /out/init", volumeMounts=mounts),
            container("side", SIDE, restartPolicy="Always", volumeMounts=mounts),
        ],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "settings", "configMap": {"name": "settings"}},
            outside(out),
        ],
        "terminationGracePeriodSeconds": 600,
    }


class KilledLab:
    """Pods on a node whose agent is killed again and again."""

    def __init__(self, lab: PodLab, nursery: Nursery) -> None:
        self.lab, self.nursery = lab, nursery
        self.mortal: MortalNode | None = None
        self.when_dead: Callable[[], None] = lambda: None

    def user_namespaces(self) -> bool:
        """Whether the kernel has what the agent needs for them."""
        return all(
            one.features.user_namespaces for one in self.lab.api.read_node(self.lab.node.name).status.runtime_handlers
        )

    def arm(self, armed: set[str]) -> MortalNode:
        """Replace the agent by one that dies at these."""
        self.lab.node.stop()
        self.mortal = MortalNode(self.nursery, self.lab.node, armed)
        return self.mortal

    def at_rest(self) -> dict[str, list[str]]:
        """What there is on the host once a Pod has come and gone."""
        self.lab.create("first")
        self.lab.wait_phase("first", "Running")
        self.lab.delete("first")
        self.lab.wait_gone("first")
        wait_until("nothing of the first is left", lambda: not self.lab.on_host())
        return left_over(self.lab.node)

    def resize(self, name: str) -> None:
        """Have a Pod resized, to the end."""
        given = {"requests": {"cpu": "20m"}, "limits": {"memory": "96Mi"}}
        body = {"spec": {"containers": [{"name": "main", "resources": given}]}}
        self.lab.api.patch_namespaced_pod_resize(name, self.lab.namespace, body)

        def resized(pod: Any) -> bool:
            under_way = any(one.type.startswith("PodResize") for one in pod.status.conditions)
            return main_status(pod).resources.limits["memory"] == "96Mi" and not under_way

        self.until_pod(name, "has been resized", resized)

    def change_settings(self, uid: str) -> None:
        """Have a volume updated that shows the ConfigMap, to the end; each death leaves one version, whole."""
        shown = self.lab.node.state / "pods" / uid / "volumes" / "kubernetes.io~configmap" / "settings"

        def seen() -> dict[str, str]:
            found = {path.name: path.read_text() for path in (shown / "..data").iterdir()}
            assert found in (OLD, NEW)
            through_links = {path.name: path.read_text() for path in shown.glob("[a-z]*") if path.exists()}
            assert through_links.items() <= found.items()
            return through_links

        def tidy() -> bool:
            return seen() == NEW and sorted(os.listdir(shown)) == sorted(
                [*NEW, "..data", os.readlink(shown / "..data")]
            )

        self.lab.api.replace_namespaced_config_map(
            "settings", self.lab.namespace, {"metadata": {"name": "settings"}, "data": NEW}
        )
        self.until("the volume shows the new version, and nothing else is left in it", tidy)

    def jail(self, names: tuple[str, ...], out: Path) -> None:
        """Have Pods with user namespaces, to the moment that they run: neighbours, as no range was lost in between."""
        for name in names:
            mount = {"name": "out", "mountPath": "/out"}
            self.lab.create(
                name,
                containers=[container("main", JAILED, volumeMounts=[mount])],
                volumes=[outside(out / name)],
                hostUsers=False,
            )
        maps = [out / name / "map" for name in names]
        for name in names:
            self.until_pod(name, "runs", lambda pod: pod.status.phase == "Running")
        self.until("both tell their range", lambda: all(one.exists() and one.read_text().split() for one in maps))
        starts = sorted(int(one.read_text().split()[1]) for one in maps)
        assert starts == [starts[0] + 65536 * index for index in range(len(names))]

    def until(self, what: str, predicate: Callable[[], Any]) -> Any:
        """Wait for a true answer, reviving the agent; each death is progress."""
        assert self.mortal is not None
        deadline = time.monotonic() + PATIENCE
        while not (answer := predicate()):
            if self.mortal.died():
                self.when_dead()
                self.mortal.revive()
                deadline = time.monotonic() + PATIENCE
            assert time.monotonic() < deadline, self._told(what)
            time.sleep(0.02)
        return answer

    def until_pod(self, name: str, what: str, predicate: Callable[[Any], Any]) -> Any:
        """Wait for a Pod; return it."""
        found = self.until(f"{name} {what}", lambda: [p for p in [self.lab.get(name)] if p and predicate(p)])
        return found[0]

    def until_left(self, before: dict[str, list[str]]) -> None:
        """Wait until no more than that is on the host."""
        found: dict[str, Any] = {}

        def same() -> bool:
            found.clear()
            found.update(difference(before, left_over(self.lab.node)))
            return not found

        try:
            self.until("nothing is left", same)
        except AssertionError as error:
            raise AssertionError(f"{found}\n{error}") from None

    def _told(self, what: str) -> str:
        assert self.mortal is not None
        pods = self.lab.api.list_namespaced_pod(self.lab.namespace).items
        text = f"waited for: {what}\ndeaths: {self.mortal.deaths}\narmed: {self.mortal.armed}\n"
        return text + "\n".join(str(pod.status) for pod in pods) + self.lab.node.text()[-6000:]


@pytest.fixture
def killed(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode]) -> Iterator[KilledLab]:
    node = make_node(container_log_max_size="2Ki", container_log_max_files=1000)
    with Nursery() as nursery:
        try:
            with PodLab(lab_cluster, node) as lab:
                lab.api.create_namespaced_config_map(lab.namespace, {"metadata": {"name": "settings"}, "data": OLD})
                MortalNode(nursery, node, set())
                lab.wait_ready()
                made = KilledLab(lab, nursery)
                yield made
                node.stop()
                MortalNode(nursery, node, set())
        finally:
            node.close()


def left_over(node: AgentNode) -> dict[str, list[str]]:
    """What there is on the host, and in the agent's directories, of Pods."""
    found = network() | mentioned((str(node.run), str(node.state), node.cgroup_root))
    # Whether the bridge has a carrier follows later, and is no thing that could be left.
    found["links"] = [line.split()[0] for line in found["links"]]
    found["routes"] = [line.removesuffix(" linkdown") for line in found["routes"]]
    agent = str(node.process.pid) if node.process is not None else ""
    found["processes"] = [line for line in found["processes"] if line.split()[0] != agent]
    found["cgroups"] = sorted(path for path, _, _ in walk_cgroups(node.cgroup_root))
    folders = ("pods", "pods-logs", "log-links", "runtime", "network/ipam", "network/hostports")
    found["files"] = sorted(str(path) for folder in folders for path in (node.state / folder).glob("*"))
    return found


def chatter(node: AgentNode, pod: Any) -> list[int]:
    """The numbers that the chatty container has logged, over all its files."""
    meta, attempt = pod.metadata, main_status(pod).restart_count
    folder = node.state / "pods-logs" / f"{meta.namespace}_{meta.name}_{meta.uid}" / "main"
    names = sorted(path.name for path in folder.glob(f"{attempt}.log*") if not path.name.endswith(".tmp"))
    names = [name for name in names if f"{name}.gz" not in names]
    names.sort(key=lambda name: (name == f"{attempt}.log", name))
    text = ""
    for name in names:
        data = (folder / name).read_bytes()
        text += (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    return [int(line.split(" ", 5)[4]) for line in text.splitlines() if " F line " in line]


def container_ids(pod: Any) -> list[str]:
    return [one.container_id for one in (*pod.status.init_container_statuses, *pod.status.container_statuses)]


def test_every_failpoint_in_a_pods_life(killed: KilledLab) -> None:
    lab, node, known = killed.lab, killed.lab.node, known_failpoints()
    if not killed.user_namespaces():
        known = {name for name in known if not name.startswith("userns.")}
    out = Path(node.state) / "out"
    before = killed.at_rest()
    mortal = killed.arm(known)

    lab.create("steady", **everything(out, 38080))
    pod = killed.until_pod("steady", "ready", lambda pod: pod.status.container_statuses and main_status(pod).ready)
    started, started_uid = container_ids(pod), pod.metadata.uid
    failing = container("main", "echo said > /dev/termination-log; echo out; exit 7")
    failing["ports"] = [{"containerPort": 80, "hostPort": 38081}]
    lab.create("fails", containers=[failing], restartPolicy="Never")
    pod = killed.until_pod("fails", "has failed", lambda pod: pod.status.phase == "Failed")
    end = main_status(pod).state.terminated
    assert (end.exit_code, end.reason, end.message) == (7, "Error", "said\n")
    mount = {"name": "out", "mountPath": "/data"}
    repeating = container("main", COUNTED, volumeMounts=[mount])
    lab.create("repeats", containers=[repeating], volumes=[outside(out / "repeats")], restartPolicy="OnFailure")
    killed.until_pod("repeats", "has succeeded", lambda pod: pod.status.phase == "Succeeded")
    assert (out / "repeats" / "runs").read_text() == "run\n" * 4

    mortal.arm_again({name for name in known if name.startswith("atomic.")})
    killed.change_settings(started_uid)
    killed.resize("steady")
    killed.until("its log was rotated, and compressed", lambda: not any(one.startswith("log.") for one in mortal.armed))
    pod = lab.get("steady")
    assert container_ids(pod) == started
    numbers = chatter(node, pod)
    assert numbers == list(range(len(numbers))), "a line was lost, or came twice"
    assert ((out / "init").read_text(), (out / "starts").read_text()) == ("ran\n", "side\nmain\n")
    assert set((out / "post").read_text().split()) == {"hook"}

    lab.create("stubborn", shell("trap '' TERM; while :; do sleep 1; done"))
    killed.until_pod("stubborn", "runs", lambda pod: pod.status.phase == "Running")
    jailed = ("jailed", "jailed-too") if killed.user_namespaces() else ()
    killed.jail(jailed, out)
    for name in ("steady", "stubborn", "fails", "repeats", *jailed):
        lab.delete(name)
        killed.until(f"{name} is gone", lambda name=name: lab.get(name) is None)
    killed.until_left(before)
    assert set((out / "pre").read_text().split()) == {"hook"}
    assert sorted(mortal.armed) == [], "failpoints that no Pod of this test has come by"


def test_deleted_by_force_while_the_agent_is_dead(killed: KilledLab) -> None:
    """Nobody tells the next agent what the Pod was: it has but the pieces."""
    lab, node = killed.lab, killed.lab.node
    before = killed.at_rest()
    mortal = killed.arm(known_failpoints())

    def forget() -> None:
        for pod in lab.api.list_namespaced_pod(lab.namespace).items:
            lab.delete(pod.metadata.name, grace=0)

    killed.when_dead = forget
    number = 0
    alive: list[Any] = []
    while not alive:
        name, number = f"gone-{number}", number + 1
        # What is left of the one before may hold its port still: each has its own.
        jailed = {"hostUsers": False} if number % 2 and killed.user_namespaces() else {}
        lab.create(name, **everything(Path(node.state) / "out", 38080 + number), **jailed)

        def ready_or_gone(name: str = name) -> bool:
            pod = lab.get(name)
            alive[:] = [pod] if pod and pod.status.container_statuses and main_status(pod).ready else []
            return pod is None or bool(alive)

        killed.until(f"{name} is ready, or gone", ready_or_gone)
    forget()
    killed.until_left(before)
    assert {"pod.cgroup", "network.linked", "create.done", "start.done", "teardown.parts"} <= set(mortal.deaths)
    claims = {"userns.written", "userns.claimed", "userns.pinned"} if killed.user_namespaces() else set()
    assert claims | {"atomic.written", "atomic.prepared", "atomic.swapped"} <= set(mortal.deaths)
