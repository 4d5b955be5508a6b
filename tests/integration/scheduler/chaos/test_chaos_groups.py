"""Storms over preemption and gangs: no victim more than needed, no gang in part."""

import asyncio
from collections import Counter

import pytest

from nodewright.kube.resources import PODS, PRIORITYCLASSES
from support.fault_proxy import BINDING, POD_STATUS, Fault
from support.scheduler_chaos import overcommitted, until

from .load import all_bound, bound, make_pods, told

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]

CPU = {"cpu": "100m"}


@pytest.fixture
async def high(space):
    name = f"high-{space.namespace}"
    await space.client.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": 1000})
    yield name
    await space.client.delete(PRIORITYCLASSES, name)


async def test_preemption_with_failing_writes_and_kills(space, proxy, spawn, verdict, high):
    for number in range(4):
        await space.node(f"n{number}", "1", "64Gi")
    process = spawn(proxy=proxy, name="before")
    low = [f"low{number}" for number in range(40)]
    await make_pods(space, low, requests=CPU)
    await all_bound(space, 40)
    process.kill()
    faults = [
        proxy.add(Fault(cut_after=True), method="PATCH", path=POD_STATUS, every=3),
        proxy.add(Fault(status=500), method="PATCH", path=POD_STATUS, every=5),
        proxy.add(Fault(cut_after=True), method="DELETE", path="/pods/", every=3),
        proxy.add(Fault(status=500), method="DELETE", path="/pods/", every=5),
        proxy.add(Fault(cut_after=True), method="POST", path=BINDING, every=4),
    ]
    names = [f"high{number}" for number in range(16)]
    await make_pods(space, names, requests=CPU, priorityClassName=high)

    async def placed(goal):
        found = (await space.client.list(PODS, space.namespace)).items
        return sum(1 for p in found if p["metadata"]["name"] in names and p["spec"].get("nodeName")) >= goal

    for life, goal in enumerate((1, 6)):
        process = spawn(proxy=proxy, name=f"life{life}")
        await until(lambda goal=goal: placed(goal))
        process.kill()
    spawn(proxy=proxy, name="last")
    await until(lambda: placed(16))
    found = await verdict()
    assert overcommitted(found.nodes, found.pods) == []
    # A scheduler that is killed between an eviction and the note of it may evict once more after its restart.
    assert 40 - 16 - 8 <= sum(1 for name in found.bound if name in low) <= 40 - 16
    assert all(rule.hits for rule in faults)


async def test_every_victim_is_told_of_although_answers_are_lost(space, proxy, spawn, verdict, high):
    for number in range(3):
        await space.node(f"n{number}", "1", "64Gi")
    spawn(proxy=proxy)
    low = [f"low{number}" for number in range(30)]
    await make_pods(space, low, requests=CPU)
    await all_bound(space, 30)
    lost = proxy.add(Fault(cut_after=True), method="DELETE", path="/pods/", every=3)
    proxy.add(Fault(cut_after=True), method="PATCH", path=POD_STATUS, every=5)
    await make_pods(space, [f"high{number}" for number in range(6)], requests={"cpu": "200m"}, priorityClassName=high)

    async def settled():
        found = await verdict()
        assert len(found.bound) == 18 + 6
        assert await told(space, "Preempted") == set(low) - set(found.bound)
        return found

    found = await until(settled)
    assert overcommitted(found.nodes, found.pods) == []
    assert lost.hits >= 4


async def test_no_gang_stays_in_part_when_the_scheduler_is_killed_amid_its_bindings(space, proxy, spawn, verdict):
    """The oldest gang has the last name: after a restart others come first, and must not take its room."""
    for number, cpu in enumerate(("1", "1", "1", "800m")):
        await space.node(f"n{number}", cpu, "64Gi")
    gate = asyncio.Event()
    proxy.add(Fault(), method="POST", path=BINDING, limit=14)  # these pass
    held = proxy.add(Fault(hold=gate), method="POST", path=BINDING)

    async def gang(name):
        meta = {
            "labels": {"nodewright.dev/pod-group": name},
            "annotations": {"nodewright.dev/pod-group-min-member": "8"},
        }
        for number in range(8):
            body = {"metadata": {"name": f"{name}-{number}", **meta}, "spec": spec}
            await space.client.create(PODS, body, space.namespace)

    container = {"name": "c", "image": "none:1", "resources": {"requests": CPU}}
    spec = {"schedulerName": "nodewright", "terminationGracePeriodSeconds": 0, "containers": [container]}
    process = spawn(proxy=proxy, name="first")
    await process.ready()
    for number in reversed(range(7)):
        await gang(f"g{number}")

    async def amid():
        return await bound(space) == 14 and held.hits

    await until(amid)
    process.kill()
    proxy.clear()
    proxy.add(Fault(cut_after=True), method="POST", path=BINDING, every=3)
    proxy.add(Fault(status=409), method="POST", path=BINDING, every=5)
    spawn(proxy=proxy, name="second")
    await all_bound(space, 32)
    found = await verdict()
    assert overcommitted(found.nodes, found.pods) == []
    sizes = Counter(name.split("-")[0] for name in found.bound)
    assert list(sizes.values()) == [8] * 4, sizes
