"""A node host that joins a running cluster is held back until the DaemonSets that prepare it are ready there."""

import json
from typing import Any

from support.cluster import Cluster

IMAGE = "localhost/nodewright-demo:1"


def daemonset(name: str, namespace: str, command: str, **spec: Any) -> str:
    container = {
        "name": "c",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", command],
        "readinessProbe": {"exec": {"command": ["/bin/sh", "-c", "test -e /tmp/ready"]}, "periodSeconds": 1},
    }
    labels = {"app": name}
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return json.dumps(
        {
            "apiVersion": "nodewright.dev/v1alpha1",
            "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
                **spec,
            },
        }
    )


def on_node(cluster: Cluster, namespace: str, node: str) -> dict[str, Any]:
    pods = cluster.get("pods", "-n", namespace)["items"]
    return {p["metadata"]["labels"]["app"]: p for p in pods if p["spec"].get("nodeName") == node}


def started(pod: dict[str, Any]) -> str:
    return str(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])


def became_ready(pod: dict[str, Any]) -> str:
    conditions = {c["type"]: c for c in pod["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    return str(conditions["Ready"]["lastTransitionTime"])


def test_a_new_node_host_gets_its_daemons_in_order_before_anything_else(cluster, namespace):
    slow = "sleep 3; touch /tmp/ready; sleep 3600"
    cluster.apply(daemonset("first", namespace, slow, nodeReadiness={"effect": "NoExecute"}))
    cluster.apply(daemonset("second", namespace, slow, nodeReadiness={"after": ["first"]}))
    cluster.apply(daemonset("plain", namespace, "touch /tmp/ready; sleep 3600"))
    wanted = {f"{namespace}.first": "NoExecute", f"{namespace}.second": "NoSchedule"}

    def told() -> bool:
        found = cluster.get("configmap", "nodewright-startup-taints", "-n", "kube-system").get("data") or {}
        return wanted.items() <= found.items()

    cluster.wait("the policy told", told)
    before = {node["metadata"]["name"]: node for node in cluster.get("nodes")["items"]}
    assert not any(node["spec"].get("taints") for node in before.values()), "nodes that are there stay as they are"
    try:
        cluster.run("up", "--name", cluster.name, "--nodes", "3")
        node = cluster.wait(
            "a third node",
            lambda: next(iter({n["metadata"]["name"] for n in cluster.get("nodes")["items"]} - set(before)), None),
        )
        pods = cluster.wait(
            f"all three Ready on {node}",
            lambda: (
                (found := on_node(cluster, namespace, node)).keys() == {"first", "second", "plain"}
                and all(_ready(pod) for pod in found.values())
                and found
            ),
            90,
        )
        assert became_ready(pods["first"]) <= started(pods["second"])
        assert became_ready(pods["second"]) <= started(pods["plain"])
        cluster.wait("no taint is left", lambda: not cluster.get("node", node)["spec"].get("taints"))
        events = [e for e in cluster.get("events", "-n", namespace)["items"] if e["reason"] == "NodeReleased"]
        assert {e["involvedObject"]["name"] for e in events if node in e["message"]} == {"first", "second"}
    finally:
        cluster.run("up", "--name", cluster.name, "--nodes", "2", "--wait")


def _ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
