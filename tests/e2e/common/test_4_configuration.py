"""Configuration that is applied to what runs, and objects that are refused with the reason."""

import pytest

from support.live import Live
from support.live_facts import Facts
from support.live_objects import IMAGE, Traffic, server_spec, service, workload

GROUP = "nodewright.dev/v1alpha1"


def node_config(name: str, mode: str, priority: int = 100) -> dict:
    """A NodeAgentConfig for all nodes."""
    spec = {"priority": priority, "proxy": {"mode": mode}}
    return {"apiVersion": GROUP, "kind": "NodeAgentConfig", "metadata": {"name": name}, "spec": spec}


def reported(live: Live, name: str) -> dict[str, dict]:
    """What each node says about a NodeAgentConfig, for its present generation."""
    found = live.custom.get_cluster_custom_object("nodewright.dev", "v1alpha1", "nodeagentconfigs", name)
    generation = found["metadata"]["generation"]
    nodes = found.get("status", {}).get("nodes", [])
    return {each["name"]: each for each in nodes if each.get("observedGeneration") == generation}


def test_a_proxy_mode_changed_live_keeps_traffic_and_pods(live: Live, facts: Facts, namespace: str) -> None:
    nodes = facts.nodes[:1] + facts.nodes[-1:]
    live.apply(
        workload("apps/v1", "Deployment", "web", namespace, server_spec(drain=1), replicas=2),
        service("web", namespace, {"app": "web"}, facts.service_labels),
    )
    address = live.core.read_namespaced_service("web", namespace).spec.cluster_ip
    traffic = Traffic.start(live, namespace, f"http://{address}/", nodes)
    before = live.containers(namespace)
    proxies = facts.kubelet_nodes + facts.control_plane_nodes if facts.release else facts.nodewright_nodes
    name = f"{namespace}-mode"
    try:
        for mode in ("nftables", "auto"):
            live.apply(node_config(name, mode))

            def all_say(mode: str = mode) -> bool:
                said = {node: each.get("proxyMode", "") for node, each in reported(live, name).items()}
                return all(said.get(node, "").endswith("nftables" if mode == "nftables" else "s") for node in proxies)

            live.wait(f"mode {mode} reported by {', '.join(proxies)}", all_say)
            traffic.flows(10)
        reasons = {node: each.get("proxyReason") for node, each in reported(live, name).items()}
        assert all(reasons[node] for node in proxies), f"auto says why: {reasons}"
    finally:
        live.kubectl("delete", "nodeagentconfig", name)
    traffic.flows(10)
    assert traffic.errors() == []
    assert live.containers(namespace) == before


BAD = {
    "a DaemonSet with a port that is no number": (
        {
            "apiVersion": GROUP,
            "kind": "DaemonSet",
            "spec": {
                "selector": {"matchLabels": {"app": "bad"}},
                "template": {
                    "metadata": {"labels": {"app": "bad"}},
                    "spec": {"containers": [{"name": "c", "image": IMAGE, "ports": [{"containerPort": "http"}]}]},
                },
            },
        },
        ["spec.template.spec.containers[0].ports[0].containerPort"],
    ),
    "a DaemonSet whose selector does not match its template": (
        {
            "apiVersion": GROUP,
            "kind": "DaemonSet",
            "spec": {
                "selector": {"matchLabels": {"app": "other"}},
                "template": {
                    "metadata": {"labels": {"app": "bad"}},
                    "spec": {"containers": [{"name": "c", "image": IMAGE}]},
                },
            },
        },
        ["spec.template.metadata.labels", "selector"],
    ),
    "a NodeAgentConfig with a mode that there is not": (
        {"apiVersion": GROUP, "kind": "NodeAgentConfig", "spec": {"proxy": {"mode": "userspace"}}},
        ["spec.proxy.mode", "userspace"],
    ),
    "a SchedulerProfile without a name to serve": (
        {"apiVersion": GROUP, "kind": "SchedulerProfile", "spec": {}},
        ["spec.schedulerName", "Required"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_objects_are_refused_with_field_and_reason(live: Live, namespace: str, what: str) -> None:
    obj, words = BAD[what]
    metadata = {"name": f"bad-{namespace}"} | ({"namespace": namespace} if obj["kind"] == "DaemonSet" else {})
    said = live.refused({**obj, "metadata": metadata})
    assert all(word in said for word in words), said


WEBHOOK = {
    "an unknown argument of a plugin": (
        {
            "apiVersion": GROUP,
            "kind": "SchedulerProfile",
            "spec": {
                "schedulerName": "bad",
                "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategie": {}}}],
            },
        },
        ["scoringStrategie"],
    ),
    "a Pod template that the API server would refuse": (
        workload(
            GROUP, "DaemonSet", "bad", "",
            {"containers": [{"name": "c", "image": IMAGE, "volumeMounts": [{"name": "absent", "mountPath": "/x"}]}]},
        ),
        ["spec.template.spec.containers[0].volumeMounts[0].name", "absent"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WEBHOOK)
def test_the_webhook_refuses_what_the_schema_cannot_know(live: Live, facts: Facts, namespace: str, what: str) -> None:
    if not facts.webhook:
        pytest.skip("no admission webhook is installed here")
    obj, words = WEBHOOK[what]
    metadata = {"name": f"bad-{namespace}"} | ({"namespace": namespace} if obj["kind"] == "DaemonSet" else {})
    said = live.refused({**obj, "metadata": metadata})
    assert all(word in said for word in words), said
