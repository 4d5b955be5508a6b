"""Answers that are refusals, late, or lost: no Pod is lost, none is bound twice, nothing is promised twice."""

import asyncio

import pytest

from nodewright.kube.resources import NODES
from support.fault_proxy import BINDING, EVENTS, POD_STATUS, Fault
from support.scheduler_chaos import overcommitted

from .load import all_bound, all_told, make_pods

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]


async def test_refused_late_and_lost_answers(space, proxy, spawn, verdict):
    for number in range(6):
        await space.node(f"n{number}", "2", "64Gi")
    rules = {
        "cut after": proxy.add(Fault(cut_after=True), method="POST", path=BINDING, every=7),
        "cut before": proxy.add(Fault(cut_before=True), method="POST", path=BINDING, every=9),
        "conflict": proxy.add(Fault(status=409), method="POST", path=BINDING, every=11),
        "busy": proxy.add(Fault(status=429, retry_after=0), method="POST", path=BINDING, every=13),
        "error": proxy.add(Fault(status=500), method="POST", path=BINDING, every=17),
        "away": proxy.add(Fault(status=503, retry_after=0), method="POST", path=BINDING, every=19),
        "late": proxy.add(Fault(delay=0.2), method="POST", path=BINDING, share=0.1, seed=1),
        "event cut": proxy.add(Fault(cut_after=True), method="POST", path=EVENTS, every=10),
        "event error": proxy.add(Fault(status=500), method="POST", path=EVENTS, every=23),
        "patch error": proxy.add(Fault(status=500), method="PATCH", path=POD_STATUS, every=2),
    }
    spawn(proxy=proxy)
    names = [f"p{number}" for number in range(120)]
    creating = asyncio.ensure_future(make_pods(space, names, requests={"cpu": "100m"}))
    for _ in range(4):
        await asyncio.sleep(0.5)
        proxy.cut_streams()
    await creating
    await all_bound(space, 120)
    await all_told(space, 120)
    (await verdict()).check(names)
    missed = [name for name, rule in rules.items() if not rule.hits and name != "patch error"]
    assert not missed
    assert proxy.committed_unseen() >= 120 // 8


async def test_what_was_stored_counts_although_nobody_said_so(space, proxy, spawn, verdict):
    """The answer is lost, and the watch is late: until it shows the Pod, nobody else may have the room."""
    for number in range(5):
        await space.node(f"n{number}", "1", "64Gi")
    lost = proxy.add(Fault(cut_after=True), method="POST", path=BINDING, every=3)
    proxy.add(Fault(lag=0.7), method="GET", path="^/api/v1/pods$")
    names = [f"p{number}" for number in range(70)]
    await make_pods(space, names, requests={"cpu": "100m"})
    spawn(proxy=proxy)
    await all_bound(space, 50)
    await asyncio.sleep(2.0)  # more than the lag: time to do wrong
    found = await verdict()
    assert overcommitted(found.nodes, found.pods) == []
    assert len(found.bound) == 50
    assert lost.hits >= 16
    assert set(found.bindings.stored.values()) == {1}


async def test_room_is_not_given_away_while_the_fate_of_a_binding_is_unknown(space, proxy, spawn, verdict):
    """A host port for one: the binding is stored, its answer lost, and reads fail for a while too."""
    await space.node("n", "4", "64Gi")
    proxy.add(Fault(cut_after=True), method="POST", path=BINDING, limit=1)
    dead = proxy.add(Fault(cut_before=True), method="GET", path="/pods/", limit=6)
    silent = asyncio.Event()
    ports = [{"containerPort": 80, "hostPort": 8080}]
    container = {"name": "c", "image": "none:1", "ports": ports}
    for name in ("a", "b", "c"):
        await space.pod(name, containers=[container])
    process = spawn(proxy=proxy)
    await process.ready()
    proxy.add(Fault(hold_stream=silent), method="GET", path="^/api/v1/pods$")
    await all_bound(space, 1)
    proxy.cut_streams()
    await asyncio.sleep(3.0)
    silent.set()
    await all_told(space, 1)
    found = await verdict()
    assert overcommitted((await space.client.list(NODES)).items, found.pods) == []
    assert len(found.bound) == 1
    assert sum(found.bindings.stored.values()) == 1
    assert dead.seen >= 1


async def test_conditions_and_events_arrive_although_writes_fail(space, proxy, spawn):
    await space.node("n", "1")
    patches = proxy.add(Fault(cut_before=True), method="PATCH", path=POD_STATUS, limit=4)
    errors = proxy.add(Fault(status=503), method="PATCH", path=POD_STATUS, limit=4)
    events = proxy.add(Fault(cut_after=True), method="POST", path=EVENTS, every=2)
    names = [f"p{number}" for number in range(6)]
    await make_pods(space, names, requests={"cpu": "2"})
    spawn(proxy=proxy)
    for name in names:
        condition = await space.refused(name)
        assert condition["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
    await all_told(space, len(names), "FailedScheduling")
    assert (patches.hits, errors.hits) == (4, 4)
    assert events.hits >= 2
