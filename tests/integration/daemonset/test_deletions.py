"""DaemonSets that are deleted in every way, with kube-controller-manager's garbage collector at work."""

import asyncio
import uuid

import pytest

from nodewright.kube.errors import NotFound
from nodewright.kube.resources import CONTROLLERREVISIONS, DAEMONSETS, NAMESPACES, PODS
from support.daemonset_chaos import PodWatch

from .conftest import World

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]

# The garbage collector looks for new kinds every 30 s.
LONG = 60.0
HOLD = "example.com/hold"


@pytest.fixture
async def watch(world):
    one = PodWatch(world)
    yield one
    await one.stop()


@pytest.fixture
def with_operator(controller_manager, operator):
    """Ours beside the garbage collector."""
    return operator


def uids(pods):
    return {p["metadata"]["uid"] for p in pods}


def owners(pod):
    return {ref["uid"] for ref in pod["metadata"].get("ownerReferences") or []}


async def settled(world, watch, count):
    await world.until(lambda: len(world.pods()) == watch.ready == count, timeout=LONG)
    await world.until(lambda: world.observed() and world.condition().get("status") == "True", timeout=LONG)
    return world.pods()


async def let_go(world, pods):
    for pod in pods:
        try:
            await world.client.patch(PODS, pod["metadata"]["name"], {"metadata": {"finalizers": None}}, world.namespace)
        except NotFound:
            pass


def holding(world):
    manifest = world.manifest()
    manifest["spec"]["template"]["metadata"]["finalizers"] = [HOLD]
    return manifest


async def test_orphans_are_taken_over_by_the_next_of_that_name(world, watch, with_operator):
    for i in range(3):
        await world.add_node(f"n{i}")
    await world.create()
    before = uids(await settled(world, watch, 3))
    (revision,) = world.all(CONTROLLERREVISIONS)
    first = world.ds()["metadata"]["uid"]
    await world.client.delete(DAEMONSETS, "ds", world.namespace, propagation_policy="Orphan")
    await world.until(lambda: not world.all(DAEMONSETS), timeout=LONG)
    await world.create()
    await world.until(
        lambda: (ds := world.all(DAEMONSETS)) and all(owners(p) == {ds[0]["metadata"]["uid"]} for p in world.pods())
    )
    assert uids(await settled(world, watch, 3)) == before
    assert world.ds()["metadata"]["uid"] != first
    (after,) = world.all(CONTROLLERREVISIONS)
    assert after["metadata"]["uid"] == revision["metadata"]["uid"]
    assert (watch.created, watch.problems) == (3, [])


async def test_made_anew_at_once(world, watch, with_operator):
    """The first one's pods are the garbage collector's; the second one does not touch them, and gets its own."""
    for i in range(3):
        await world.add_node(f"n{i}")
    await world.create()
    before = uids(await settled(world, watch, 3))
    await world.client.delete(DAEMONSETS, "ds", world.namespace)
    made = await world.create()
    await world.until(lambda: not uids(world.all(PODS)) & before, timeout=LONG)
    pods = await settled(world, watch, 3)
    assert all(owners(p) == {made["metadata"]["uid"]} for p in pods)
    assert watch.created == 6
    await world.until(lambda: len(world.all(CONTROLLERREVISIONS)) == 1, timeout=LONG)


async def test_foreground_deletion_waits_for_pods_and_makes_no_new_ones(world, watch, with_operator):
    for i in range(2):
        await world.add_node(f"n{i}")
    await world.client.create(DAEMONSETS, holding(world), world.namespace)
    pods = await settled(world, watch, 2)
    try:
        await world.client.delete(DAEMONSETS, "ds", world.namespace, propagation_policy="Foreground")
        await world.until(
            lambda: len(world.all(PODS)) == 2 and all(p["metadata"].get("deletionTimestamp") for p in world.all(PODS)),
            timeout=LONG,
        )
        assert world.ds()["metadata"]["deletionTimestamp"]
        await let_go(world, pods[:1])
        await world.until(lambda: len(world.all(PODS)) == 1)
        await world.add_node("late")  # nothing is made for it, nor for the node that has lost its pod
        await asyncio.sleep(1)
        assert watch.created == 2
    finally:
        await let_go(world, pods)
    await world.until(lambda: not world.all(DAEMONSETS) and not world.all(PODS), timeout=LONG)
    assert watch.created == 2


async def test_a_finalizer_on_pods_holds_up_a_rollout_and_nothing_else(world, watch, with_operator):
    nodes = [await world.add_node(f"n{i}") for i in range(3)]
    await world.client.create(DAEMONSETS, holding(world), world.namespace)
    old = await settled(world, watch, 3)
    try:
        await world.set_image("v2")
        await world.until(lambda: len(leaving(world)) == 1)
        await asyncio.sleep(1)  # maxUnavailable is 1: nobody else goes, and no second pod comes beside the first
        assert (len(leaving(world)), watch.created) == (1, 3)
        for number in range(1, 4):
            await let_go(world, leaving(world))
            await world.until(lambda number=number: watch.created == 3 + number)
            if number < 3:
                await world.until(lambda: len(leaving(world)) == 1)
        await world.until(lambda: world.images() == dict.fromkeys(nodes, "v2"))
    finally:
        await let_go(world, [*old, *world.all(PODS)])
    assert watch.problems == []


def leaving(world):
    return [p for p in world.all(PODS) if p["metadata"].get("deletionTimestamp")]


async def test_a_namespace_goes_in_the_middle_of_a_burst(world, client, with_operator):
    """It goes with all that is in it; the operator neither keeps it nor complains, and serves the others."""
    for i in range(30):
        await world.add_node(f"n{i:02}")
    other = World(client, f"t-{uuid.uuid4().hex[:8]}")
    other.mark = world.mark
    await client.create(NAMESPACES, {"metadata": {"name": other.namespace}})
    await other.start()
    try:
        await other.create()
        await other.until(lambda: len(other.pods()) >= 3, timeout=LONG)
        await client.delete(NAMESPACES, other.namespace)
        await world.create()
        await world.until(lambda: len(world.pods()) == 30)
        await other.until(lambda: not (other.all(PODS) or other.all(DAEMONSETS)), timeout=LONG)
        for _ in range(120):
            try:
                await client.get(NAMESPACES, other.namespace)
            except NotFound:
                break
            await asyncio.sleep(0.5)
        else:
            raise AssertionError("the namespace does not go")
    finally:
        await other.stop()
    assert not with_operator.ended.done()
