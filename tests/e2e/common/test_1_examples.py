"""Every example does what its first line says, on whatever cluster this is."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cluster import EXAMPLES
from support.live import Live, is_ready
from support.live_facts import RELEASE_NAMESPACE, Facts
from support.live_objects import NEXT_IMAGE, Traffic

DEFAULT = "default"


@pytest.fixture(scope="module")
def applied(live: Live, facts: Facts) -> Iterator[None]:
    """All examples at once, as the README says."""
    live.kubectl("apply", "-f", str(EXAMPLES))
    yield
    live.kubectl("delete", "-f", str(EXAMPLES), "--wait=true", "--timeout=90s")


def ready_pods(live: Live, app: str, count: int) -> list:
    """The Pods of an example, once that many are Ready and no others are left."""

    def complete() -> list | None:
        pods = live.pods(DEFAULT, f"app={app}")
        return pods if len(pods) == count and all(is_ready(pod) for pod in pods) else None

    return live.wait(f"{count} Pods of {app} Ready", complete, 90)


def accepted(live: Live, plural: str, name: str) -> dict:
    """The object, once its condition Accepted is True for what was applied."""

    def is_accepted() -> dict | None:
        found = live.custom.get_cluster_custom_object("nodewright.dev", "v1alpha1", plural, name)
        conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
        current = conditions.get("Accepted", {})
        fresh = current.get("observedGeneration", 0) == found["metadata"]["generation"]
        return found if current.get("status") == "True" and fresh else None

    return live.wait(f"{plural} {name} accepted", is_accepted)


def backends(live: Live, service: str) -> set[str]:
    """Names of the Ready Pods in the Service's EndpointSlices."""
    slices = live.discovery.list_namespaced_endpoint_slice(
        DEFAULT, label_selector=f"kubernetes.io/service-name={service}"
    )
    return {e.target_ref.name for each in slices.items for e in each.endpoints or [] if e.conditions.ready}


def daemonset(live: Live, facts: Facts) -> None:
    pods = ready_pods(live, "hello", len(facts.nodes))
    assert {pod.spec.node_name for pod in pods} == set(facts.nodes)

    def counted() -> dict | None:
        found = live.custom.get_namespaced_custom_object("nodewright.dev", "v1alpha1", DEFAULT, "daemonsets", "hello")
        status = found.get("status", {})
        return status if status.get("numberReady") == len(facts.nodes) else None

    status = live.wait("status of hello", counted)
    assert status["desiredNumberScheduled"] == status["currentNumberScheduled"] == len(facts.nodes)


def rollout_steps(live: Live, facts: Facts) -> None:
    ready_pods(live, "careful", len(facts.nodes))

    def complete() -> dict | None:
        found = live.custom.get_namespaced_custom_object("nodewright.dev", "v1alpha1", DEFAULT, "daemonsets", "careful")
        conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
        return conditions if conditions.get("Progressing", {}).get("reason") == "NewRevisionAvailable" else None

    conditions = live.wait("careful rolled out", complete)
    assert {name: conditions[name]["status"] for name in ("Available", "Degraded")} == {
        "Available": "True",
        "Degraded": "False",
    }


def nds_status(live: Live, name: str, **wanted: object) -> dict:
    """The status of a DaemonSet of ours, once it says that and has seen the newest spec."""

    def matches() -> dict | None:
        found = live.custom.get_namespaced_custom_object("nodewright.dev", "v1alpha1", DEFAULT, "daemonsets", name)
        status = found.get("status", {})
        fresh = status.get("observedGeneration") == found["metadata"]["generation"]
        return status if fresh and all(status.get(field) == value for field, value in wanted.items()) else None

    return live.wait(f"status of {name}: {wanted}", matches, 90)


def node_classes(live: Live, facts: Facts) -> None:
    def sizes() -> dict[str, str]:
        pods = live.pods(DEFAULT, "app=sized")
        ready = [pod for pod in pods if is_ready(pod)]
        return {pod.spec.node_name: pod.spec.containers[0].resources.requests["cpu"] for pod in ready}

    chosen, others = facts.nodes[0], facts.nodes[1:]
    live.wait("normal sizes", lambda: sizes() == dict.fromkeys(facts.nodes, "10m"), 90)
    before = {pod.spec.node_name: pod.metadata.uid for pod in live.pods(DEFAULT, "app=sized")}
    live.kubectl("label", "node", chosen, "size=large", "--overwrite")
    try:
        live.wait("a large size", lambda: sizes() == {chosen: "20m", **dict.fromkeys(others, "10m")}, 90)
        after = {pod.spec.node_name: pod.metadata.uid for pod in live.pods(DEFAULT, "app=sized")}
        assert {node for node in after if after[node] != before[node]} == {chosen}
    finally:
        live.kubectl("label", "node", chosen, "size-")


def run_once(live: Live, facts: Facts) -> None:
    count = len(facts.nodes)
    status = nds_status(live, "prepare", numberAvailable=count)
    assert status["numberReady"] == status["updatedNumberScheduled"] == count
    pods = live.pods(DEFAULT, "app=prepare")
    assert {pod.status.phase for pod in pods} == {"Succeeded"}
    assert {pod.spec.node_name: live.log(pod.metadata.name, DEFAULT).strip() for pod in pods} == {
        node: f"prepared {node}" for node in facts.nodes
    }


def image_updates(live: Live, facts: Facts) -> None:
    before = {pod.metadata.uid for pod in ready_pods(live, "updated", len(facts.nodes))}
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": NEXT_IMAGE}]
    live.kubectl("patch", "nds", "updated", "-n", DEFAULT, "--type=json", "-p", json.dumps(patch))
    count = len(facts.nodes)
    nds_status(live, "updated", updatedNumberScheduled=count, numberAvailable=count)
    pods = live.pods(DEFAULT, "app=updated")
    assert {pod.metadata.uid for pod in pods} == before
    assert {pod.spec.containers[0].image for pod in pods} == {NEXT_IMAGE}
    assert {pod.status.container_statuses[0].restart_count for pod in pods} == {1}


def service(live: Live, facts: Facts) -> None:
    pods = ready_pods(live, "hello", len(facts.nodes))
    names = {pod.metadata.name for pod in pods}
    live.wait("all hello Pods behind the Service", lambda: backends(live, "hello") == names)


def client(live: Live, facts: Facts) -> None:
    names = {pod.metadata.name for pod in ready_pods(live, "hello", len(facts.nodes))}
    live.wait_ready(DEFAULT, ["client"])
    live.wait(
        "an answer of each hello Pod", lambda: all(f"pod={name}" in live.log("client", DEFAULT) for name in names)
    )


def scheduler(live: Live, facts: Facts) -> None:
    for pod in ready_pods(live, "placed", 2):
        events = live.core.list_namespaced_event(DEFAULT, field_selector=f"involvedObject.name={pod.metadata.name}")
        placed = [event for event in events.items if event.reason == "Scheduled"]
        assert placed, f"no Scheduled event of {pod.metadata.name}"
        by = {event.reporting_component or event.source.component for event in placed}
        assert by == {"nodewright"}, by


def gang(live: Live, facts: Facts) -> None:
    pods = ready_pods(live, "gang", 3)
    assert len({pod.spec.node_name for pod in pods}) >= 2, "spread over nodes"
    by = {pod.spec.scheduler_name for pod in pods}
    assert by == {"nodewright"}


def profile(live: Live, facts: Facts) -> None:
    accepted(live, "schedulerprofiles", "packed")
    nodes = [pod.spec.node_name for pod in ready_pods(live, "packed", 3)]
    assert len(set(nodes)) == 1, f"packed on one node: {nodes}"


def node_config(live: Live, facts: Facts) -> None:
    accepted(live, "nodeagentconfigs", "services")
    # The proxy of a kubelet's host reports for the kubelet's Node; an agent that holds its proxy itself, for its own.
    wanted = set(facts.kubelet_nodes + facts.control_plane_nodes) if facts.release else set(facts.nodewright_nodes)

    def reported() -> bool:
        found = live.custom.get_cluster_custom_object("nodewright.dev", "v1alpha1", "nodeagentconfigs", "services")
        modes = {each["name"]: each.get("proxyMode") for each in found.get("status", {}).get("nodes", [])}
        return all(modes.get(node) == "nftables" for node in wanted)

    live.wait(f"proxyMode nftables of {', '.join(sorted(wanted))}", reported)


def mixed(live: Live, facts: Facts) -> None:
    pods = ready_pods(live, "mixed", 4)
    if facts.kubelet_nodes and facts.nodewright_nodes:
        for part, nodes in (("kubelet", facts.kubelet_nodes), ("nodewright", facts.nodewright_nodes)):
            on = {pod.spec.node_name for pod in pods if pod.metadata.labels["part"] == part}
            assert on <= set(nodes), f"{part}: {on}"
    names = {pod.metadata.name for pod in pods}
    live.wait("all mixed Pods behind the Service", lambda: backends(live, "mixed") == names)


def node_readiness(live: Live, facts: Facts) -> None:
    for app in ("node-network", "node-storage"):
        ready_pods(live, app, len(facts.nodes))
    home = RELEASE_NAMESPACE if facts.release else "kube-system"

    def told() -> bool:
        data = live.core.read_namespaced_config_map("nodewright-startup-taints", home).data or {}
        wanted = dict.fromkeys(("default.node-network", "default.node-storage"), "NoSchedule")
        return wanted.items() <= data.items()

    live.wait("the taints of new Nodes told to the API server", told)


def drain_order(live: Live, facts: Facts) -> None:
    priorities = {
        app: {pod.spec.priority or 0 for pod in ready_pods(live, app, len(facts.nodes))}
        for app in ("log-shipper", "log-collector")
    }
    assert priorities == {"log-shipper": {0}, "log-collector": {1000}}


CHECKS: dict[str, Callable[[Live, Facts], None]] = {
    "10-daemonset.yaml": daemonset,
    "12-rollout-steps.yaml": rollout_steps,
    "13-node-classes.yaml": node_classes,
    "14-run-once.yaml": run_once,
    "15-image-updates.yaml": image_updates,
    "16-node-readiness.yaml": node_readiness,
    "17-drain-order.yaml": drain_order,
    "20-service.yaml": service,
    "30-client.yaml": client,
    "40-scheduler.yaml": scheduler,
    "45-gang.yaml": gang,
    "50-schedulerprofile.yaml": profile,
    "60-nodeagentconfig.yaml": node_config,
    "70-mixed.yaml": mixed,
}


@pytest.mark.parametrize("example", sorted(path.name for path in Path(EXAMPLES).glob("*.yaml")))
def test_example(applied: None, live: Live, facts: Facts, example: str) -> None:
    CHECKS[example](live, facts)


def test_the_mixed_service_answers_from_every_node_with_every_pod(
    applied: None, live: Live, facts: Facts, namespace: str
) -> None:
    names = {pod.metadata.name for pod in ready_pods(live, "mixed", 4)}
    address = live.core.read_namespaced_service("mixed", DEFAULT).spec.cluster_ip
    traffic = Traffic.start(live, namespace, f"http://{address}/", facts.nodes)

    def seen_by(client_pod: str) -> bool:
        text = live.log(client_pod, namespace)
        return all(f"pod={name} " in text for name in names) or all(f"host={name} " in text for name in names)

    live.wait("each client to see each Pod", lambda: all(seen_by(each) for each in traffic.names))
    assert traffic.errors() == []
