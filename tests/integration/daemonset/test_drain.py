"""The order in which pods leave a node that is drained: by the controller, and by `nodewright drain`."""

import asyncio
import contextlib

import pytest

from nodewright.cli.draining import Drainer, DrainOptions, uncordon
from nodewright.cli.output import PRECONDITION, TIMED_OUT, CliError
from nodewright.kube.cache import WatchCache
from nodewright.kube.errors import AlreadyExists, NotFound
from nodewright.kube.resources import CONFIGMAPS, DAEMONSETS, NODES, PODDISRUPTIONBUDGETS, PODS, PRIORITYCLASSES

LAST = {"nodeDrain": "LeaveLast"}
DRAIN = "nodewright.dev/drain:NoSchedule"


class Machine:
    """A node with its kubelet: binds the pods that are meant for it, and ends those that are to end when told so."""

    def __init__(self, world, node):
        self.world, self.node = world, node
        self.ends = True
        self._task = None

    async def run(self):
        cache = WatchCache(self.world.client, PODS, type=dict, namespace=self.world.namespace, name="test kubelet")
        changed = asyncio.Event()
        cache.add_handler(lambda _old, _new: changed.set())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cache.run())
            while True:
                for pod in list(cache.values()):
                    await self._tend(pod)
                await changed.wait()
                changed.clear()

    async def _tend(self, pod):
        meta = pod["metadata"]
        with contextlib.suppress(NotFound):
            if meta.get("deletionTimestamp"):
                if self.ends:
                    await self.world.client.delete(PODS, meta["name"], self.world.namespace, grace_period_seconds=0)
            elif not pod["spec"].get("nodeName"):
                binding = {"metadata": {"name": meta["name"]}, "target": {"kind": "Node", "name": self.node}}
                await self.world.client.create(
                    PODS, binding, self.world.namespace, name=meta["name"], subresource="binding"
                )
                await self.world.set_status(pod)


@pytest.fixture
async def machine(world):
    found = Machine(world, await world.add_node("n"))
    task = asyncio.create_task(found.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def priorities(world):
    """Priority classes by value."""
    names = {}
    for value in (5, 7):
        names[value] = f"{world.mark}-{value}"
        await world.client.create(PRIORITYCLASSES, {"metadata": {"name": names[value]}, "value": value})
    yield names
    for name in names.values():
        await world.client.delete(PRIORITYCLASSES, name)


async def _owner(world):
    with contextlib.suppress(AlreadyExists):
        await world.client.create(CONFIGMAPS, {"metadata": {"name": "owner"}}, world.namespace)
    return "owner"


async def plain_pod(world, node, name, *, owner=True, emptydir=False, labels=None, status=None, annotations=None):
    meta = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
    if owner:
        # one that exists, for the garbage collector; which kind is of no matter, unless it is a DaemonSet
        held = await world.client.get(CONFIGMAPS, await _owner(world), world.namespace)
        ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": held["metadata"]["uid"]}
        meta["ownerReferences"] = [{**ref, "controller": True}]
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 5}
    if emptydir:
        spec["volumes"] = [{"name": "v", "emptyDir": {}}]
    made = await world.client.create(PODS, {"metadata": meta, "spec": spec}, world.namespace)
    await world.set_status(made, **(status or {}))


async def daemon(world, name, *, priority=None, **spec):
    manifest = world.manifest(name, **spec)
    if priority is not None:
        manifest["spec"]["template"]["spec"]["priorityClassName"] = priority
    await world.client.create(DAEMONSETS, manifest, world.namespace)


def names(world, *, ending=True):
    """Pods that exist, without the random end of daemon pods' names."""
    pods = world.all(PODS) if ending else world.pods()
    return {(p["metadata"].get("generateName") or p["metadata"]["name"]).rstrip("-") for p in pods}


def ready(world, count):
    return lambda: len([p for p in world.pods() if world.is_ready(p) and p["spec"].get("nodeName")]) >= count


async def remove(world, name):
    await world.client.delete(PODS, name, world.namespace)


async def test_the_order_without_our_command(world, machine, priorities, operator):
    """Somebody else drains, and has said so by the taint."""
    await daemon(world, "low", priority=priorities[5], **LAST)
    await daemon(world, "alike", priority=priorities[5], **LAST)
    await daemon(world, "high", priority=priorities[7], **LAST)
    await daemon(world, "stays")
    await plain_pod(world, machine.node, "app")
    await plain_pod(world, machine.node, "done", status={"phase": "Succeeded", "ready": False})
    await world.until(ready(world, 5))
    machine.ends = False
    await world.taint(machine.node, DRAIN)
    await world.until(lambda: world.status("high").get("desiredNumberScheduled") == 0)
    await world.until(lambda: world.status("low").get("desiredNumberScheduled") == 0)
    assert len(names(world, ending=False)) == 6, "all wait for the ordinary pod"
    await remove(world, "app")
    await world.until(lambda: "app" not in names(world, ending=False))
    # It is not gone yet: nobody moves.
    await world.client.patch(DAEMONSETS, "low", {"spec": {"minReadySeconds": 1}}, world.namespace)
    await world.until(lambda: world.observed("low"))
    assert names(world, ending=False) == {"low", "alike", "high", "stays", "done"}
    await world.client.delete(PODS, "app", world.namespace, grace_period_seconds=0)
    await world.until(lambda: names(world, ending=False) == {"high", "stays", "done"})
    assert names(world) >= {"low", "alike"}, "they are on their way"
    machine.ends = True
    await nudge(world)
    await world.until(lambda: names(world) == {"stays", "done"})
    await world.taint(machine.node)
    await world.until(lambda: names(world, ending=False) == {"low", "alike", "high", "stays", "done"})


async def test_a_pod_that_stays_is_made_anew_while_its_node_is_drained(world, machine, operator):
    await daemon(world, "stays")
    await world.until(ready(world, 1))
    await world.taint(machine.node, DRAIN)
    (old,) = world.pods()
    await remove(world, old["metadata"]["name"])
    new = await world.until(
        lambda: next((p for p in world.pods() if p["metadata"]["uid"] != old["metadata"]["uid"]), None)
    )
    assert {"key": "nodewright.dev/drain", "operator": "Exists"} in new["spec"]["tolerations"]
    assert world.status("stays")["desiredNumberScheduled"] == 1


async def test_a_restart_in_the_middle_of_a_drain_goes_on(world, machine, start_operator):
    first = await start_operator()
    await daemon(world, "last", **LAST)
    await plain_pod(world, machine.node, "app")
    await world.until(ready(world, 2))
    await world.taint(machine.node, DRAIN)
    await world.until(lambda: world.status("last").get("desiredNumberScheduled") == 0)
    await first.stop()
    await remove(world, "app")
    await world.until(lambda: names(world) == {"last"})
    await start_operator()
    await world.until(lambda: names(world) == set())


async def test_who_comes_to_leave_last_during_a_drain_is_waited_for_and_leaves(world, machine, priorities, operator):
    """The change of one DaemonSet reaches the others that wait on the node."""
    await daemon(world, "early", priority=priorities[5])
    await daemon(world, "late", priority=priorities[7], **LAST)
    await plain_pod(world, machine.node, "app")
    await world.until(ready(world, 3))
    await world.taint(machine.node, DRAIN)
    await world.until(lambda: world.status("late").get("desiredNumberScheduled") == 0)
    await world.client.patch(DAEMONSETS, "early", {"spec": LAST}, world.namespace)
    await world.until(lambda: world.status("early").get("desiredNumberScheduled") == 0)
    await remove(world, "app")
    await world.until(lambda: names(world) == set())
    order = [name for kind, what, name in world.log if (kind, what) == ("Pod", "deleted")]
    assert [name.rsplit("-", 1)[0] for name in order] == ["app", "early", "late"]


# -- nodewright drain ---------------------------------------------------------------------------------------------


class Said(list):
    """What was told, and a way to wait for it."""

    def __init__(self):
        super().__init__()
        self.more = asyncio.Event()

    def __call__(self, text):
        self.append(text)
        self.more.set()

    async def until(self, *parts):
        async with asyncio.timeout(20):
            while not self.has(*parts):
                self.more.clear()
                await self.more.wait()

    def has(self, *parts):
        return any(all(part in line for part in parts) for line in self)


async def test_drain_and_uncordon(world, machine, operator):
    said = Said()
    await daemon(world, "last", **LAST)
    await daemon(world, "stays")
    await plain_pod(world, machine.node, "app")
    await plain_pod(world, machine.node, "done", owner=False, status={"phase": "Succeeded", "ready": False})
    await world.until(ready(world, 3))
    (last,) = [p["metadata"]["name"] for p in world.pods() if p["metadata"].get("generateName") == "last-"]
    (stays,) = [p["metadata"]["name"] for p in world.pods() if p["metadata"].get("generateName") == "stays-"]
    async with asyncio.timeout(30):
        await Drainer(world.client, machine.node, DrainOptions(), said).run()
    ns = world.namespace
    assert said[:2] == [
        f"node/{machine.node} cordoned",
        f"Warning: ignoring DaemonSet-managed Pods: {ns}/{stays}",
    ]
    assert sorted(said[2:-1]) == sorted(
        [
            f"evicting pod {ns}/app",
            f"evicting pod {ns}/done",
            "pod/app evicted",
            "pod/done evicted",
            f"pod/{last} is gone",
        ]
    )
    assert said.index(f"pod/{last} is gone") > said.index("pod/app evicted")
    assert said[-1] == f"node/{machine.node} drained"
    await world.until(lambda: names(world) == {"stays"})
    spec = (await world.client.get(NODES, machine.node))["spec"]
    assert spec["unschedulable"] is True
    said.clear()
    await Drainer(world.client, machine.node, DrainOptions(), said).run()
    assert said[0] == f"node/{machine.node} already cordoned"
    said.clear()
    await uncordon(world.client, machine.node, said)
    await uncordon(world.client, machine.node, said)
    assert said == [f"node/{machine.node} uncordoned", f"node/{machine.node} already uncordoned"]
    spec = (await world.client.get(NODES, machine.node)).get("spec") or {}
    assert "unschedulable" not in spec
    assert not [t for t in spec.get("taints") or [] if t["key"] == "nodewright.dev/drain"]
    await world.until(lambda: names(world, ending=False) == {"stays", "last"})


async def test_a_budget_is_respected_and_told(world, machine):
    said = Said()
    await plain_pod(world, machine.node, "app", labels={"app": "x"})
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}}
    await world.client.create(PODDISRUPTIONBUDGETS, budget, world.namespace)
    await allow(world, 0)
    draining = asyncio.create_task(Drainer(world.client, machine.node, DrainOptions(), said).run())
    try:
        await said.until('error when evicting pods/"app"', "will retry after", "disruption budget")
        assert names(world, ending=False) == {"app"}
        await world.client.patch(PODDISRUPTIONBUDGETS, "b", {"spec": {"minAvailable": 0}}, world.namespace)
        await allow(world, 1)
        async with asyncio.timeout(20):
            await draining
    finally:
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
    assert said[-1] == f"node/{machine.node} drained"


async def test_what_would_be_lost_forbids_the_drain(world, machine):
    said = Said()
    await plain_pod(world, machine.node, "lonely", owner=False)
    await plain_pod(world, machine.node, "data", emptydir=True)
    with pytest.raises(CliError) as failure:
        await Drainer(world.client, machine.node, DrainOptions(), said).run()
    ns = world.namespace
    assert failure.value.exit_code == PRECONDITION
    assert failure.value.message == (
        f"unable to drain node {machine.node}: cannot delete Pods with local storage (use --delete-emptydir-data to "
        f"override): {ns}/data; cannot delete Pods that declare no controller (use --force to override): {ns}/lonely"
    )
    assert said == []
    assert not (await world.client.get(NODES, machine.node)).get("spec", {}).get("unschedulable"), "nothing was done"
    options = DrainOptions(force=True, delete_emptydir_data=True, grace_period=1, dry_run=True)
    await Drainer(world.client, machine.node, options, said).run()
    assert said[-1] == f"node/{machine.node} drained (dry run)"
    assert said.has(f"evicting pod {ns}/data (dry run)")
    assert not (await world.client.get(NODES, machine.node)).get("spec", {}).get("unschedulable"), "a dry run"
    said.clear()
    await Drainer(world.client, machine.node, DrainOptions(force=True, delete_emptydir_data=True), said).run()
    assert said.has("Warning: deleting Pods that declare no controller", f"{ns}/lonely")
    await world.until(lambda: names(world) == set())


async def test_time_runs_out(world, machine):
    """Nobody serves the DaemonSet: its pod does not leave."""
    machine.ends = False
    await plain_pod(world, machine.node, "app")
    said = Said()
    with pytest.raises(CliError) as failure:
        await Drainer(world.client, machine.node, DrainOptions(timeout=1.5), said).run()
    assert failure.value.exit_code == TIMED_OUT
    assert failure.value.message == (
        f"drain of node {machine.node} did not complete within 1.5s: {world.namespace}/app to end"
    )
    assert (await world.client.get(NODES, machine.node))["spec"]["unschedulable"] is True


async def test_a_node_that_is_not_there(world):
    with pytest.raises(CliError, match='node "nowhere" not found'):
        await Drainer(world.client, "nowhere", DrainOptions(), Said()).run()
    with pytest.raises(CliError, match='node "nowhere" not found'):
        await uncordon(world.client, "nowhere", Said())


async def allow(world, disruptions):
    """What the disruption controller says of the budget `b`, also where there is none."""
    budget = await world.client.get(PODDISRUPTIONBUDGETS, "b", world.namespace)
    status = {"observedGeneration": budget["metadata"]["generation"], "currentHealthy": 1, "expectedPods": 1}
    status |= {"desiredHealthy": 1 - disruptions, "disruptionsAllowed": disruptions}
    await world.client.patch(PODDISRUPTIONBUDGETS, "b", {"status": status}, world.namespace, subresource="status")


async def nudge(world):
    """A change of any pod wakes the kubelet of the test."""
    for pod in world.all(PODS):
        with contextlib.suppress(NotFound):
            patch = {"metadata": {"annotations": {"nudge": "1"}}}
            await world.client.patch(PODS, pod["metadata"]["name"], patch, world.namespace)
