"""What our DaemonSet has beyond apps/v1, with real nodes: sizes per node class, runs to completion, image updates."""

import json
from typing import Any

import msgspec

from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.prepull import is_done
from support.live import Live, is_ready
from support.live_facts import Facts
from support.live_objects import NEXT_IMAGE, pod, script_spec, server_spec, workload

KIND = "nodewright.dev/v1alpha1"
MISSING = "localhost/nodewright-missing:1"
PULLERS = "nodewright.dev/pre-pull-of"


def rolling(**fields: Any) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, **fields}}


def change(live: Live, namespace: str, path: str, value: Any) -> None:
    """Replace a field of the DaemonSet `web`."""
    patch = [{"op": "add", "path": path, "value": value}]
    live.kubectl("patch", "nds", "web", "-n", namespace, "--type=json", "-p", json.dumps(patch))


def settled(live: Live, namespace: str, count: int, timeout: float = 90) -> dict[str, Any]:
    """The Pods by node, once the DaemonSet says of its newest spec that all is well."""

    def well() -> dict[str, Any] | None:
        found = live.custom.get_namespaced_custom_object("nodewright.dev", "v1alpha1", namespace, "daemonsets", "web")
        status = found.get("status", {})
        ready = {c["type"]: c["status"] for c in status.get("conditions", [])}.get("Ready") == "True"
        fresh = status.get("observedGeneration") == found["metadata"]["generation"]
        if not (fresh and ready and status.get("numberAvailable") == count):
            return None
        return {pod.spec.node_name: pod for pod in live.pods(namespace, "app=web")}

    return live.wait(f"{count} Pods of web well", well, timeout)


def uids(pods: dict[str, Any]) -> dict[str, str]:
    return {node: pod.metadata.uid for node, pod in pods.items()}


def restarts(pods: dict[str, Any]) -> set[int]:
    return {pod.status.container_statuses[0].restart_count for pod in pods.values()}


def test_a_size_for_each_class_of_nodes(live: Live, facts: Facts, namespace: str) -> None:
    chosen, *others = facts.nodes

    def override(memory: str) -> dict[str, Any]:
        resources = {"requests": {"memory": memory}, "limits": {"memory": memory}}
        container = {"name": "web", "resources": resources, "env": [{"name": "SIZE", "value": memory}]}
        selector = {"matchLabels": {"kubernetes.io/hostname": chosen}}
        return {"name": "chosen", "nodeSelector": selector, "containers": [container]}

    def sizes() -> dict[str, str]:
        pods = live.pods(namespace, "app=web")
        return {pod.spec.node_name: live.log(pod.metadata.name, namespace).strip() for pod in pods if is_ready(pod)}

    spec = server_spec()
    spec["containers"][0]["command"] = ["/bin/sh", "-c", "echo ${SIZE:-none}; exec serve >/dev/null"]
    web = workload(KIND, "DaemonSet", "web", namespace, spec, nodeOverrides=[override("24Mi")])
    live.apply({**web, "spec": {**web["spec"], "updateStrategy": rolling()}})
    before = settled(live, namespace, len(facts.nodes))
    assert sizes() == {chosen: "24Mi", **dict.fromkeys(others, "none")}
    assert before[chosen].status.container_statuses[0].resources.limits == {"memory": "24Mi"}
    change(live, namespace, "/spec/nodeOverrides", [override("32Mi")])
    live.wait("the other size", lambda: sizes() == {chosen: "32Mi", **dict.fromkeys(others, "none")})
    after = uids(settled(live, namespace, len(facts.nodes)))
    assert {node for node in after if after[node] != uids(before)[node]} == {chosen}


def test_runs_to_completion_again_for_another_template(live: Live, facts: Facts, namespace: str) -> None:
    def script(text: str) -> dict[str, Any]:
        return script_spec("", f"echo {text}; sleep 0.5")

    web = workload(KIND, "DaemonSet", "web", namespace, script("first"), runOnce=True)
    live.apply({**web, "spec": {**web["spec"], "updateStrategy": rolling()}})
    count = len(facts.nodes)
    first = settled(live, namespace, count)
    assert {pod.status.phase for pod in first.values()} == {"Succeeded"}
    assert {live.log(pod.metadata.name, namespace).strip() for pod in first.values()} == {"first"}
    change(live, namespace, "/spec/template/spec/containers/0/command/2", "echo second")
    second = settled(live, namespace, count)
    assert {live.log(pod.metadata.name, namespace).strip() for pod in second.values()} == {"second"}
    assert set(uids(first).values()).isdisjoint(uids(second).values())


def test_a_new_image_in_place(live: Live, facts: Facts, namespace: str) -> None:
    web = workload(KIND, "DaemonSet", "web", namespace, server_spec())
    live.apply({**web, "spec": {**web["spec"], "updateStrategy": rolling(podUpdate="InPlaceIfPossible")}})
    count = len(facts.nodes)
    before = settled(live, namespace, count)
    addresses = {node: pod.status.pod_ip for node, pod in before.items()}
    change(live, namespace, "/spec/template/spec/containers/0/image", NEXT_IMAGE)
    after = settled(live, namespace, count)
    assert uids(after) == uids(before)
    assert restarts(after) == {1}
    assert {pod.spec.containers[0].image for pod in after.values()} == {NEXT_IMAGE}
    assert {node: pod.status.pod_ip for node, pod in after.items()} == addresses
    events = [text for reason, text in live.events(namespace, "web") if reason == "SuccessfulUpdate"]
    assert {f"Updated pod in place: {pod.metadata.name}" for pod in after.values()} <= set(events)


def test_a_bad_image_in_place_is_repaired_by_the_next_one(live: Live, facts: Facts, namespace: str) -> None:
    web = workload(KIND, "DaemonSet", "web", namespace, server_spec())
    live.apply({**web, "spec": {**web["spec"], "updateStrategy": rolling(podUpdate="InPlaceIfPossible")}})
    count = len(facts.nodes)
    before = settled(live, namespace, count)
    change(live, namespace, "/spec/template/spec/containers/0/image", MISSING)

    def one_fails() -> bool:
        pods = live.pods(namespace, "app=web")
        waiting = [pod.status.container_statuses[0].state.waiting for pod in pods]
        return sum(bool(each and each.reason in ("ErrImagePull", "ImagePullBackOff")) for each in waiting) == 1

    live.wait("a Pod that can't get its image", one_fails)
    assert sum(map(is_ready, live.pods(namespace, "app=web"))) == count - 1
    change(live, namespace, "/spec/template/spec/containers/0/image", NEXT_IMAGE)
    after = settled(live, namespace, count)
    assert len(set(uids(after).values()) - set(uids(before).values())) == 1  # the broken one was made anew


def test_a_start_that_fails_shows_that_the_image_is_there(live: Live, facts: Facts, namespace: str) -> None:
    """Whatever a node reports of a puller whose image lacks the command, it is enough to know that the pull is done."""
    for number, node in enumerate(facts.nodes):
        spec = script_spec(node, "")
        spec["containers"][0]["command"] = ["nothing-like-it"]
        live.apply(pod(f"puller-{number}", namespace, spec))

    def all_done() -> bool:
        found = json.loads(live.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
        return all(is_done(msgspec.convert(each, Pod)) for each in found)

    live.wait("all images known to be there", all_done)


def test_images_are_pulled_before_a_pod_goes(live: Live, facts: Facts, namespace: str) -> None:
    web = workload(KIND, "DaemonSet", "web", namespace, server_spec())
    live.apply({**web, "spec": {**web["spec"], "updateStrategy": rolling(prePull={"maxParallel": 1})}})
    count = len(facts.nodes)
    before = settled(live, namespace, count)
    change(live, namespace, "/spec/template/spec/containers/0/image", MISSING)
    live.wait(
        "a failed pull in the events",
        lambda: [reason for reason, _ in live.events(namespace, "web") if reason == "PrePullFailed"],
    )
    assert uids({pod.spec.node_name: pod for pod in live.pods(namespace, "app=web")}) == uids(before)
    assert all(map(is_ready, live.pods(namespace, "app=web")))
    change(live, namespace, "/spec/template/spec/containers/0/image", NEXT_IMAGE)
    after = settled(live, namespace, count)
    assert {pod.spec.containers[0].image for pod in after.values()} == {NEXT_IMAGE}
    live.wait("no puller left", lambda: not live.pods(namespace, PULLERS))
