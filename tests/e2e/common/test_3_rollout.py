"""Rolling updates behind a Service while clients on every node ask it all the time: no request is lost."""

import json
import time
from collections.abc import Callable

from support.live import Live, is_ready
from support.live_facts import Facts
from support.live_objects import Traffic, server_spec, service, workload

Figures = Callable[[str], None]
# Seconds that an old Pod goes on answering after its deletion: the time that rules of all nodes have to leave it out.
DRAIN = 3


def replaced(live: Live, namespace: str, app: str, old: set[str]) -> Callable[[], bool]:
    """A predicate: as many Ready Pods as before, and none of the old ones is left, even ending."""

    def answer() -> bool:
        pods = live.core.list_namespaced_pod(namespace, label_selector=f"app={app}").items
        return {pod.metadata.uid for pod in pods}.isdisjoint(old) and len(pods) == len(old) and all(map(is_ready, pods))

    return answer


def roll(live: Live, namespace: str, kind: str, name: str, count: int) -> float:
    """Change the Pod template; wait until every Pod is a new one. Returns the seconds that it took."""
    old = {pod.metadata.uid for pod in live.pods(namespace, f"app={name}")}
    assert len(old) == count
    patch = {"spec": {"template": {"metadata": {"annotations": {"round": str(time.time_ns())}}}}}
    live.kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(patch))
    began = time.monotonic()
    live.wait(f"every Pod of {name} replaced", replaced(live, namespace, name, old), 180)
    return time.monotonic() - began


def all_ready(live: Live, namespace: str, app: str, count: int) -> None:
    """Wait for the first round."""
    live.wait(
        f"{count} Pods of {app}",
        lambda: len(pods := live.pods(namespace, f"app={app}")) == count and all(map(is_ready, pods)),
        90,
    )


def test_a_daemonset_of_ours_on_all_nodes(live: Live, facts: Facts, namespace: str, figures: Figures) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    live.apply(
        workload(
            "nodewright.dev/v1alpha1", "DaemonSet", "web", namespace, server_spec(drain=DRAIN), updateStrategy=strategy
        ),
        service("web", namespace, {"app": "web"}, facts.service_labels),
    )
    figures(_roll_under_traffic(live, facts, namespace, "nds", len(facts.nodes)))


def test_a_deployment_over_both_kinds_of_nodes(live: Live, facts: Facts, namespace: str, figures: Figures) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}
    live.apply(
        workload("apps/v1", "Deployment", "web", namespace, server_spec(drain=DRAIN), replicas=4, strategy=strategy),
        service("web", namespace, {"app": "web"}, facts.service_labels),
    )
    figures(_roll_under_traffic(live, facts, namespace, "deployment", 4))


def _roll_under_traffic(live: Live, facts: Facts, namespace: str, kind: str, count: int) -> str:
    all_ready(live, namespace, "web", count)
    address = live.core.read_namespaced_service("web", namespace).spec.cluster_ip
    traffic = Traffic.start(live, namespace, f"http://{address}/", facts.nodes)
    seconds = roll(live, namespace, kind, "web", count)
    traffic.flows(10)
    assert traffic.errors() == []
    return f"rolling update of a {kind}: {count} Pods in {seconds:.1f} s, {traffic.answers()} answers, no error"
