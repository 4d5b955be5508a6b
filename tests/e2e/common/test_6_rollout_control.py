"""Rollouts of our DaemonSet that wait for people, and that go back by themselves, with real Pods."""

import json
from collections.abc import Callable
from typing import Any

from support.live import Live, is_ready
from support.live_facts import Facts
from support.live_objects import server_spec, workload

KIND = "daemonsets.nodewright.dev"
HASH = "controller-revision-hash"


def up(live: Live, facts: Facts, namespace: str, **rolling: Any) -> dict[str, Any]:
    """A DaemonSet `web` that is rolled out on all nodes; its status."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    spec = server_spec()
    live.apply(workload("nodewright.dev/v1alpha1", "DaemonSet", "web", namespace, spec, updateStrategy=strategy))
    live.wait("all Pods of web", lambda: len(live.pods(namespace, "app=web")) == len(facts.nodes))
    live.kubectl("wait", "--for=condition=Ready", f"{KIND}/web", "-n", namespace, "--timeout=90s")
    return status(live, namespace)


def status(live: Live, namespace: str) -> dict[str, Any]:
    """The status of `web`."""
    found = live.custom.get_namespaced_custom_object("nodewright.dev", "v1alpha1", namespace, "daemonsets", "web")
    return dict(found.get("status", {}))


def patch(live: Live, namespace: str, body: dict[str, Any]) -> None:
    """Merge this into `web`."""
    live.kubectl("patch", f"{KIND}/web", "-n", namespace, "--type=merge", "-p", json.dumps(body))


def progressing(live: Live, namespace: str, reason: str) -> Callable[[], dict[str, Any] | None]:
    """A predicate: the status, once the rollout is doing this."""

    def answer() -> dict[str, Any] | None:
        found = status(live, namespace)
        reasons = {each["type"]: each["reason"] for each in found.get("conditions", [])}
        return found if reasons.get("Progressing") == reason else None

    return answer


def ready_hashes(live: Live, namespace: str) -> dict[str, str]:
    """The revision of each node's Pod; "" where it is not Ready."""
    pods = live.pods(namespace, "app=web")
    return {pod.spec.node_name or "": pod.metadata.labels[HASH] if is_ready(pod) else "" for pod in pods}


def test_a_rollout_waits_at_a_step_and_stands_still_in_a_pause(live: Live, facts: Facts, namespace: str) -> None:
    stable = up(live, facts, namespace, steps=[{"nodes": 1, "waitForResume": True}])["currentRevision"]
    patch(live, namespace, {"spec": {"template": {"metadata": {"annotations": {"round": "2"}}}}})
    waiting = live.wait("the first step to be ready", progressing(live, namespace, "WaitingForStep"), 90)
    update = waiting["updateRevision"]
    assert (waiting["updatedNumberScheduled"], waiting["currentRevision"]) == (1, stable)
    assert list(ready_hashes(live, namespace).values()).count(update) == 1

    patch(live, namespace, {"spec": {"paused": True}})
    live.wait("the pause", progressing(live, namespace, "DaemonSetPaused"))
    live.kubectl("annotate", f"{KIND}/web", "-n", namespace, f"nodewright.dev/resumed-step={update}/1")
    held = next(pod for pod in live.pods(namespace, "app=web") if pod.metadata.labels[HASH] == stable)
    node = held.spec.node_name
    live.kubectl("delete", "pod", held.metadata.name, "-n", namespace, "--wait=true")
    live.wait(
        "a Pod of the old template in its place", lambda: ready_hashes(live, namespace).get(node) == stable or None
    )

    patch(live, namespace, {"spec": {"paused": False}})
    complete = live.wait("the end of the rollout", progressing(live, namespace, "NewRevisionAvailable"), 90)
    assert complete["currentRevision"] == update
    assert ready_hashes(live, namespace) == dict.fromkeys(facts.nodes, update)
    live.wait(
        "events of the rollout",
        lambda: {"RolloutStepReady", "RolloutComplete"} <= {reason for reason, _ in live.events(namespace, "web")},
    )


def test_a_bad_image_is_taken_back(live: Live, facts: Facts, namespace: str) -> None:
    stable = up(live, facts, namespace, maxFailed=0, onFailure="Rollback")["currentRevision"]
    before = {pod.spec.node_name: pod.metadata.uid for pod in live.pods(namespace, "app=web")}
    bad = [
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "localhost/nodewright-demo:none"},
        {"op": "add", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "Never"},
    ]
    live.kubectl("patch", f"{KIND}/web", "-n", namespace, "--type=json", "-p", json.dumps(bad))
    live.kubectl("wait", "--for=condition=Degraded", f"{KIND}/web", "-n", namespace, "--timeout=90s")
    live.wait(
        "all Pods of the old template again",
        lambda: ready_hashes(live, namespace) == dict.fromkeys(facts.nodes, stable),
        90,
    )
    after = {pod.spec.node_name: pod.metadata.uid for pod in live.pods(namespace, "app=web")}
    assert sum(after[node] != before[node] for node in facts.nodes) == 1, "the others were left alone"
    found = live.wait("its status", progressing(live, namespace, "RolloutFailed"))
    degraded = next(each for each in found["conditions"] if each["type"] == "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "RolledBack")
    assert found["rollout"]["failedRevision"] == found["updateRevision"] != stable
    live.wait("its event", lambda: "RolloutRolledBack" in {reason for reason, _ in live.events(namespace, "web")})
