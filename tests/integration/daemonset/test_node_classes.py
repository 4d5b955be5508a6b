"""spec.nodeOverrides against the real API server: other sizes on other nodes, and a rollout of what changed alone."""

import asyncio

import pytest

from nodewright.kube.client import PatchType
from nodewright.kube.resources import CONTROLLERREVISIONS, DAEMONSETS, NODES

pytestmark = pytest.mark.needs_cluster

MARK = "nodewright.dev/node-class"


def override(cpu, name="big"):
    return {
        "name": name,
        "nodeSelector": {"matchLabels": {"size": name}},
        "containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}, "env": [{"name": "THREADS", "value": cpu}]}
        ],
    }


def container(pod):
    return pod["spec"]["containers"][0]


def cpu(pod):
    return container(pod).get("resources", {}).get("requests", {}).get("cpu")


async def settled(world, **wanted):
    """Make pods ready until each node has one with such a CPU request and all is well."""

    def is_settled():
        found = {node: cpu(pod) for node, pod in world.pods_by_node().items()}
        status = world.status()
        return (
            found == wanted
            and world.observed()
            and world.condition().get("status") == "True"
            and status["updatedNumberScheduled"] == status["numberAvailable"] == len(wanted)
        )

    async with asyncio.timeout(30):
        while True:
            world.changed.clear()
            await world.make_all_ready()
            if is_settled():
                return
            await world.changed.wait()


async def test_each_class_has_its_size_and_changes_replace_its_pods_alone(world, operator):
    big, small, plain = [await world.add_node(name, size=name) for name in ("big", "small", "plain")]
    await world.create(nodeOverrides=[override("2"), override("1", "small")])
    await world.until(lambda: len(world.pods()) == 3)
    await settled(world, **{big: "2", small: "1", plain: None})
    before = {node: pod["metadata"]["uid"] for node, pod in world.pods_by_node().items()}
    assert container(world.pods_by_node()[big])["env"] == [{"name": "THREADS", "value": "2"}]
    assert "annotations" not in world.pods_by_node()[plain]["metadata"]
    assert world.pods_by_node()[big]["metadata"]["annotations"][MARK].startswith("big/")

    patch = [{"op": "replace", "path": "/spec/nodeOverrides/0", "value": override("3")}]
    await world.client.patch(DAEMONSETS, "ds", patch, world.namespace, kind=PatchType.JSON)
    await world.until(lambda: world.status().get("updatedNumberScheduled") == 2)
    await settled(world, **{big: "3", small: "1", plain: None})
    after = {node: pod["metadata"]["uid"] for node, pod in world.pods_by_node().items()}
    assert {node for node in before if before[node] != after[node]} == {big}
    assert len(world.all(CONTROLLERREVISIONS)) == 1  # sizes are no part of a revision

    await world.client.patch(NODES, plain, {"metadata": {"labels": {"size": "small"}}})
    await settled(world, **{big: "3", small: "1", plain: "1"})
    assert world.pods_by_node()[big]["metadata"]["uid"] == after[big]
    assert world.pods_by_node()[small]["metadata"]["uid"] == after[small]


async def test_a_change_of_sizes_keeps_to_the_budget(world, operator):
    nodes = [await world.add_node(f"n{i}", size="big") for i in range(3)]
    await world.create(nodeOverrides=[override("1")], updateStrategy={"rollingUpdate": {"maxUnavailable": 1}})
    await world.until(lambda: len(world.pods()) == 3)
    await settled(world, **dict.fromkeys(nodes, "1"))
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    patch = [{"op": "replace", "path": "/spec/nodeOverrides/0", "value": override("2")}]
    await world.client.patch(DAEMONSETS, "ds", patch, world.namespace, kind=PatchType.JSON)
    await world.until(lambda: world.observed() and sorted(map(str, map(cpu, world.pods()))) == ["1", "1", "2"])
    await world.until(lambda: world.status().get("numberAvailable") == 2)
    assert len({pod["metadata"]["uid"] for pod in world.pods()} & before) == 2
    await settled(world, **dict.fromkeys(nodes, "2"))
