"""A node is drained and taken back: who leaves when, with real Pods and the command line."""

import subprocess
import threading

from support.cluster import NODEWRIGHT
from support.live import Live, is_ready
from support.live_facts import Facts
from support.live_objects import server_spec, workload

OURS = "nodewright.dev/v1alpha1"
CRITICAL = "system-node-critical"


class Departures:
    """What happens to the Pods of a node, in order: (app, `ending` or `gone`). Looks again and again meanwhile."""

    def __init__(self, live: Live, namespace: str, node: str) -> None:
        self.seen: list[tuple[str, str]] = []
        self._live, self._namespace, self._node = live, namespace, node
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Departures":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        before: set[str] = set()
        while not self._over.wait(0.05):
            pods = self._live.core.list_namespaced_pod(self._namespace).items
            here = {pod.metadata.labels["app"]: pod for pod in pods if pod.spec.node_name == self._node}
            self.seen += [(app, "gone") for app in sorted(before - here.keys())]
            for app, pod in sorted(here.items()):
                if pod.metadata.deletion_timestamp is not None and (app, "ending") not in self.seen:
                    self.seen.append((app, "ending"))
            before = set(here)


def nodewright(live: Live, *words: str, code: int = 0) -> str:
    """Run a verb against the cluster; both its streams."""
    argv = [*NODEWRIGHT, *words, f"--kubeconfig={live.kubeconfig}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def ready_on(live: Live, namespace: str, node: str) -> set[str]:
    """Apps with a Ready Pod on the node."""
    return {p.metadata.labels["app"] for p in live.pods(namespace) if p.spec.node_name == node and is_ready(p)}


def test_a_drain_in_order_and_back(live: Live, facts: Facts, namespace: str) -> None:
    node = facts.nodewright_nodes[-1]
    last = {**server_spec(), "terminationGracePeriodSeconds": 5}
    # The ordinary Pod takes its time to end, on the node that will be drained as long as it can.
    app = server_spec(drain=3)
    preferred = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    app["affinity"] = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": preferred}],
        }
    }
    live.apply(
        workload(OURS, "DaemonSet", "low", namespace, last, nodeDrain="LeaveLast"),
        workload(OURS, "DaemonSet", "high", namespace, {**last, "priorityClassName": CRITICAL}, nodeDrain="LeaveLast"),
        workload(OURS, "DaemonSet", "stays", namespace, server_spec()),
        workload("apps/v1", "Deployment", "app", namespace, app, replicas=1),
    )
    everybody = {"low", "high", "stays", "app"}
    live.wait(f"all Pods Ready on {node}", lambda: ready_on(live, namespace, node) == everybody, 90)
    options = ("--force", "--delete-emptydir-data", "--timeout=150s")
    assert "drained (dry run)" in nodewright(live, "drain", node, "--dry-run", *options)
    assert ready_on(live, namespace, node) == everybody
    try:
        with Departures(live, namespace, node) as departures:
            said = nodewright(live, "drain", node, *options)
            live.wait("the last to be seen gone", lambda: ("high", "gone") in departures.seen)
        assert f"node/{node} cordoned" in said
        assert f"node/{node} drained" in said
        order = [(app, what) for app in ("app", "low", "high") for what in ("ending", "gone")]
        # A Pod that ends at once may not be seen ending.
        assert departures.seen == [each for each in order if each[1] == "gone" or each in departures.seen]
        assert ready_on(live, namespace, node) == {"stays"}
        assert live.core.read_node(node).spec.unschedulable
    finally:
        said = nodewright(live, "uncordon", node)
    assert f"node/{node} uncordoned" in said
    live.wait("the daemons are back", lambda: ready_on(live, namespace, node) >= {"low", "high", "stays"}, 90)
    spec = live.core.read_node(node).spec
    assert not spec.unschedulable
    assert "nodewright.dev/drain" not in {taint.key for taint in spec.taints or []}
