"""Startup taints: put by the API server itself as nodes register, taken away by the controller."""

import asyncio
import contextlib
import json

import pytest

from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.controllers.daemonset.nodetaints import CONFIG_MAP, NodeTaintController
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import PatchType
from nodewright.kube.errors import ApiError, Invalid, NotFound
from nodewright.kube.resources import CONFIGMAPS, DAEMONSETS, MUTATINGADMISSIONPOLICIES, NODES, PODS

CONTROLLERS = (DaemonSetController, NodeTaintController)
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


class Nodes:
    """Nodes as they register, and what new ones are to get."""

    def __init__(self, world):
        self.world = world
        self.prefix = f"startup.nodewright.dev/{world.namespace}."
        self._tasks = []
        self.nodes = self._cache(NODES)
        self.config = self._cache(CONFIGMAPS, namespace="kube-system", field_selector=f"metadata.name={CONFIG_MAP}")

    def _cache(self, resource, **how):
        cache = WatchCache(self.world.client, resource, type=dict, name=f"test {resource.plural}", **how)
        cache.add_handler(lambda _old, _new: self.world.changed.set())
        return cache

    async def register(self, name, *, ready=True):
        """Create a node as a kubelet does; with `ready` the taint of nodes that are not goes, as by its controller."""
        full = f"{self.world.mark}-{name}"
        meta = {"name": full, "labels": {"test": self.world.mark}}
        made = await self.world.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        self.world._nodes.append(full)
        if ready:
            index = [t["key"] for t in made["spec"]["taints"]].index(NOT_READY["key"])
            patch = [
                {"op": "test", "path": f"/spec/taints/{index}/key", "value": NOT_READY["key"]},
                {"op": "remove", "path": f"/spec/taints/{index}"},
            ]
            with contextlib.suppress(Invalid):  # its controller was here before
                await self.world.client.patch(NODES, full, patch, kind=PatchType.JSON)
        return full

    def taints(self, node):
        """Effects of a node's startup taints of this test, by DaemonSet."""
        found = self.nodes.get(node)
        return {
            t["key"].removeprefix(self.prefix): t["effect"]
            for t in ((found or {}).get("spec") or {}).get("taints") or []
            if t["key"].startswith(self.prefix)
        }

    def told(self):
        """What the admission policy has been told of this test's DaemonSets."""
        prefix = f"{self.world.namespace}."
        data = next(iter(self.config.values()), {}).get("data") or {}
        return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}

    async def put_into_effect(self, expected, probe):
        """Wait until the policy in the API server, which has a cache of its own, gives these taints to new nodes."""
        await self.world.until(lambda: self.told() == expected)
        for number in range(100):
            node = await self.register(f"probe-{probe}-{number}", ready=False)
            found = await self.world.client.get(NODES, node)
            await self.world.client.delete(NODES, node)
            keys = {t["key"] for t in found["spec"].get("taints") or []}
            if {k.removeprefix(self.prefix) for k in keys if k.startswith(self.prefix)} == set(expected):
                return
        raise AssertionError(f"new nodes do not get {expected}")


@pytest.fixture
async def nodes(world):
    found = Nodes(world)
    tasks = [asyncio.create_task(cache.run()) for cache in (found.nodes, found.config)]
    for cache in (found.nodes, found.config):
        await cache.wait_synced()
    yield found
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # the operator has ended before the DaemonSets
    await world.client.patch(CONFIGMAPS, CONFIG_MAP, {"data": None}, "kube-system")


def readiness(*after, effect="NoSchedule"):
    return {"nodeReadiness": {"effect": effect, "after": list(after)}}


async def test_a_new_node_is_held_until_the_pod_is_ready(world, nodes, start_operator):
    await start_operator(CONTROLLERS)
    before = await nodes.register("before")
    await world.create(**readiness())
    await nodes.put_into_effect({"ds": "NoSchedule"}, "a")
    node = await nodes.register("new")
    await world.until(lambda: node in world.pods_by_node())
    assert nodes.taints(node) == {"ds": "NoSchedule"}, "put as the node was made, and held while the pod starts"
    assert nodes.taints(before) == {}
    pod = world.pods_by_node()[node]
    assert {"key": f"{nodes.prefix}ds", "operator": "Exists"} in pod["spec"]["tolerations"]
    await bind(world, pod, node)
    await world.set_status(pod, ready=False)
    await world.until(lambda: world.status().get("numberReady") == 0 and world.observed())
    assert nodes.taints(node) == {"ds": "NoSchedule"}
    await world.set_status(pod)
    await world.until(lambda: nodes.taints(node) == {})
    released = f"Removed the startup taint of node {node}: pod {world.namespace}/{pod['metadata']['name']} is available"
    await world.until(lambda: ("Normal", "NodeReleased", released) in world.events())


async def test_it_ends_with_the_daemonset_and_with_the_field(world, nodes, start_operator):
    await start_operator(CONTROLLERS)
    await world.create("a", **readiness())
    await world.create("b", **readiness(effect="NoExecute"))
    await nodes.put_into_effect({"a": "NoSchedule", "b": "NoExecute"}, "a")
    node = await nodes.register("new")
    await world.until(lambda: nodes.taints(node) == {"a": "NoSchedule", "b": "NoExecute"})
    await world.client.patch(DAEMONSETS, "a", {"spec": {"nodeReadiness": None}}, world.namespace)
    await world.until(lambda: nodes.taints(node) == {"b": "NoExecute"})
    await world.client.delete(DAEMONSETS, "b", world.namespace)
    await world.until(lambda: nodes.taints(node) == {})
    await world.until(lambda: nodes.told() == {})


async def test_a_node_without_a_pod_of_it_is_not_held(world, nodes, start_operator):
    await start_operator(CONTROLLERS)
    await world.create(**readiness())
    await nodes.put_into_effect({"ds": "NoSchedule"}, "a")
    full = f"{world.mark}-other"
    made = await world.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": full}})
    world._nodes.append(full)
    assert f"{nodes.prefix}ds" in {t["key"] for t in made["spec"]["taints"]}
    await world.until(lambda: nodes.nodes.get(full) and nodes.taints(full) == {})


async def test_what_happened_while_no_operator_ran_is_made_up_for(world, nodes, start_operator):
    first = await start_operator(CONTROLLERS)
    await world.create("a", **readiness())
    await world.create("b", **readiness())
    await nodes.put_into_effect({"a": "NoSchedule", "b": "NoSchedule"}, "a")
    await first.stop()
    node = await nodes.register("new")
    await world.until(lambda: nodes.taints(node) == {"a": "NoSchedule", "b": "NoSchedule"})
    await world.client.delete(DAEMONSETS, "a", world.namespace)
    await start_operator(CONTROLLERS)
    await world.until(lambda: nodes.taints(node) == {"b": "NoSchedule"} and nodes.told() == {"b": "NoSchedule"})


async def test_the_order_of_several(world, nodes, start_operator):
    """The second waits for the first's pod, and the plain one for both."""
    await start_operator(CONTROLLERS)
    await world.create("first", **readiness())
    await world.create("second", **readiness("first"))
    await world.create("plain")
    await nodes.put_into_effect({"first": "NoSchedule", "second": "NoSchedule"}, "a")
    node = await nodes.register("new")
    (pod,) = await world.until(lambda: on(world, node))
    assert pod["metadata"]["generateName"] == "first-"
    keys = {t.get("key") for t in pod["spec"]["tolerations"]}
    assert keys >= {f"{nodes.prefix}first", f"{nodes.prefix}second"}
    await bind(world, pod, node)
    await world.set_status(pod)
    await world.until(lambda: nodes.taints(node) == {"second": "NoSchedule"})
    second = await world.until(lambda: next((p for p in on(world, node) if "second-" in p["metadata"]["name"]), None))
    assert f"{nodes.prefix}first" not in {t.get("key") for t in second["spec"]["tolerations"]}
    assert len(on(world, node)) == 2, "the plain one still waits"
    await bind(world, second, node)
    await world.set_status(second)
    await world.until(lambda: nodes.taints(node) == {} and len(on(world, node)) == 3)


async def test_who_wait_for_each_other_are_told_and_do_not_wait(world, nodes, start_operator):
    await start_operator(CONTROLLERS)
    await world.create("a", **readiness("b"))
    await world.create("b", **readiness("a"))
    ns = world.namespace
    for other in "ab":
        message = f"nodeReadiness.after is ignored for {ns}/{other}: it waits for this DaemonSet in turn"
        await world.until(lambda m=message: ("Warning", "CircularNodeReadiness", m) in world.events())
    await nodes.put_into_effect({"a": "NoSchedule", "b": "NoSchedule"}, "a")
    node = await nodes.register("new")
    await world.until(lambda: len(on(world, node)) == 2)


async def test_a_change_of_taints_by_others_is_never_lost(world, nodes, start_operator):
    await start_operator(CONTROLLERS)
    await world.create(**readiness())
    await nodes.put_into_effect({"ds": "NoSchedule"}, "a")
    node = await nodes.register("new")
    pod = await world.until(lambda: world.pods_by_node().get(node))
    await bind(world, pod, node)
    base = [{"op": "add", "path": "/spec/taints/-", "value": {"key": "other-0", "effect": "PreferNoSchedule"}}]
    await world.client.patch(NODES, node, base, kind=PatchType.JSON)
    await world.set_status(pod)
    for number in range(1, 20):
        # by the same kind of patch that a person's `kubectl taint` sends, while the controller removes its own
        key = {"key": f"other-{number}", "effect": "PreferNoSchedule"}
        patch = [{"op": "add", "path": "/spec/taints/0", "value": key}]
        await world.client.patch(NODES, node, patch, kind=PatchType.JSON)
    await world.until(lambda: nodes.taints(node) == {})
    keys = {t["key"] for t in (await world.client.get(NODES, node))["spec"]["taints"] if t["key"].startswith("other")}
    assert keys == {f"other-{number}" for number in range(20)}


async def test_minimal_readiness_time(world, nodes, start_operator):
    await start_operator(CONTROLLERS)
    await world.create(minReadySeconds=2, **readiness())
    await nodes.put_into_effect({"ds": "NoSchedule"}, "a")
    node = await nodes.register("new")
    pod = await world.until(lambda: world.pods_by_node().get(node))
    await bind(world, pod, node)
    await world.set_status(pod)
    await world.until(lambda: world.status().get("numberReady") == 1)
    assert nodes.taints(node) == {"ds": "NoSchedule"}
    await world.until(lambda: nodes.taints(node) == {})
    assert world.status().get("numberReady") == 1


async def test_a_config_map_that_somebody_spoiled_keeps_no_node_out_and_is_put_right(world, nodes, start_operator):
    bad = {"-": "NoSchedule", f"{world.namespace}.ds": "Never", "x" * 200: "NoSchedule"}
    await world.client.patch(CONFIGMAPS, CONFIG_MAP, {"data": bad}, "kube-system")
    await world.until(lambda: nodes.told() == {"ds": "Never"})
    node = await nodes.register("spoiled")
    found = await world.client.get(NODES, node)
    assert not [t for t in found["spec"].get("taints") or [] if t["key"].startswith("startup.nodewright.dev/")]
    await start_operator(CONTROLLERS)
    await world.create(**readiness())
    await nodes.put_into_effect({"ds": "NoSchedule"}, "a")
    assert set(next(iter(nodes.config.values()))["data"]) == {f"{world.namespace}.ds"}
    await world.client.patch(CONFIGMAPS, CONFIG_MAP, {"data": {f"{world.namespace}.ds": "NoExecute"}}, "kube-system")
    await world.until(lambda: nodes.told() == {"ds": "NoSchedule"})


async def test_without_its_config_map_nodes_register(world, nodes, start_operator):
    data = next(iter(nodes.config.values()))
    await world.client.delete(CONFIGMAPS, CONFIG_MAP, "kube-system")
    try:
        await start_operator(CONTROLLERS)
        await world.create(**readiness())
        await world.until(world.observed)
        await nodes.register("new")
    finally:
        meta = {"name": CONFIG_MAP, "namespace": "kube-system", "labels": data["metadata"].get("labels") or {}}
        with contextlib.suppress(ApiError):
            await world.client.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    await nodes.put_into_effect({"ds": "NoSchedule"}, "b")


async def test_a_kubelet_may_register_and_bring_the_taint_itself(world, nodes, kubectl, start_operator):
    """The Node authorizer and NodeRestriction let the policy's taints pass; --register-with-taints is not doubled."""
    await start_operator(CONTROLLERS)
    await world.create(**readiness())
    await nodes.put_into_effect({"ds": "NoSchedule"}, "a")
    name = f"{world.mark}-kubelet"
    own = {"key": f"{nodes.prefix}ds", "effect": "NoSchedule"}
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {}}, "spec": {"taints": [own]}}
    as_node = ["--as", f"system:node:{name}", "--as-group", "system:nodes", "--as-group", "system:authenticated"]
    world._nodes.append(name)
    made = json.loads(kubectl("create", "-o", "json", *as_node, "-f", "-", stdin=json.dumps(manifest)))
    keys = [t["key"] for t in made["spec"]["taints"]]
    assert sorted(keys) == [NOT_READY["key"], own["key"]]


async def test_the_policy_is_the_one_that_serves(world):
    found = await world.client.get(MUTATINGADMISSIONPOLICIES, "startup-taints.nodewright.dev")
    assert found["spec"]["failurePolicy"] == "Ignore"


def on(world, node):
    found = []
    for pod in world.pods():
        terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        if terms["nodeSelectorTerms"][0]["matchFields"][0]["values"] == [node]:
            found.append(pod)
    return found


async def bind(world, pod, node):
    """What a scheduler does."""
    meta = pod["metadata"]
    binding = {"metadata": {"name": meta["name"]}, "target": {"kind": "Node", "name": node}}
    with contextlib.suppress(NotFound):
        await world.client.create(PODS, binding, world.namespace, name=meta["name"], subresource="binding")
