"""Gangs against a real API server: all at once, with volumes that come late as well."""

import asyncio

import pytest

from nodewright.kube.resources import PERSISTENTVOLUMECLAIMS, PODS, STORAGECLASSES

from .conftest import eventually

pytestmark = pytest.mark.needs_cluster


async def member(space, name, gang="g", minimum=3, cpu="1", timeout=None, **spec):
    annotations = {"nodewright.dev/pod-group-min-member": str(minimum)}
    if timeout:
        annotations["nodewright.dev/pod-group-timeout"] = str(timeout)
    body = {
        "metadata": {"name": name, "labels": {"nodewright.dev/pod-group": gang}, "annotations": annotations},
        "spec": {
            "schedulerName": "nodewright",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "none:1", "resources": {"requests": {"cpu": cpu}}}],
            **spec,
        },
    }
    await space.client.create(PODS, body, space.namespace)


async def test_two_gangs_that_need_the_same_room(space, start):
    await space.node("a", "3")
    start()
    for index in range(3):
        await member(space, f"g{index}", "g")
        await member(space, f"h{index}", "h")

    async def one_runs():
        nodes = {name: await space.node_of(name) for name in ("g0", "g1", "g2", "h0", "h1", "h2")}
        groups = {name[0] for name, node in nodes.items() if node}
        return groups if sum(map(bool, nodes.values())) == 3 else None

    groups = await eventually(one_runs)
    assert len(groups) == 1
    other = ({"g", "h"} - groups).pop()
    text = f"pod group {space.namespace}/{other}: 0 of at least 3 pods fit at once, so none is placed."

    async def told():  # after what it was told while it was not complete yet
        return (await space.refused(f"{other}0"))["message"].startswith(text)

    await eventually(told)
    for index in range(3):
        await space.client.delete(PODS, f"{groups.copy().pop()}{index}", space.namespace, grace_period_seconds=0)
    assert set((await space.bound(*(f"{other}{i}" for i in range(3)))).values()) == {"a"}


async def test_a_gang_that_is_not_complete_says_so(space, start):
    await space.node("a", "8")
    start()
    await member(space, "one")
    await member(space, "two")

    async def told():
        return "(2 of 3)" in (await space.condition("two")).get("message", "")

    await eventually(told)
    await member(space, "three")
    await space.bound("one", "two", "three")


@pytest.fixture
async def storage(space):
    body = {
        "metadata": {"name": "late"},
        "provisioner": "example.com/none",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await space.client.create(STORAGECLASSES, body)
    yield "late"
    await space.client.delete(STORAGECLASSES, "late")


async def test_no_member_is_bound_while_one_waits_for_its_volume(space, start, storage):
    await space.node("a", "8")
    start()
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "storageClassName": storage,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    await space.client.create(PERSISTENTVOLUMECLAIMS, claim, space.namespace)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    await member(space, "with-volume", minimum=2, timeout=2, volumes=volumes)
    await member(space, "without", minimum=2, timeout=2)

    async def selected():
        found = await space.client.get(PERSISTENTVOLUMECLAIMS, "data", space.namespace)
        return found["metadata"].get("annotations", {}).get("volume.kubernetes.io/selected-node") == "a"

    await eventually(selected)  # decided, and the provisioner (there is none) was asked
    assert not await space.node_of("without")

    async def given_up():
        return "not ready within 2 s" in (await space.condition("without")).get("message", "")

    await eventually(given_up)
    await asyncio.sleep(0)
    assert not await space.node_of("without")
    assert not await space.node_of("with-volume")
