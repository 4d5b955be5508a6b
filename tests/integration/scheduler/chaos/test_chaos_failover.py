"""An active scheduler and a standby: whatever happens to the first, the second goes on, and nothing is done twice."""

import asyncio
import signal

import pytest

from support.fault_proxy import BINDING, LEASES, PODS, Fault
from support.scheduler_chaos import leader, overcommitted, until

from .conftest import SHORT_LEASE
from .load import all_bound, all_told, bound, make_pods

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180), pytest.mark.usefixtures("fresh_lease")]

CPU = {"cpu": "100m"}


async def pair(space, spawn, first=None, second=None):
    """Two processes; the first leads once this returns, and both know the cluster."""
    active = spawn(*SHORT_LEASE, proxy=first, name="active")

    async def leads():
        return await leader(space.client)

    await until(leads)
    standby = spawn(*SHORT_LEASE, proxy=second, name="standby")
    await active.ready()
    await standby.ready()
    return active, standby, await leads()


async def test_the_leader_is_killed_under_load(space, spawn, verdict):
    for number in range(8):
        await space.node(f"n{number}", "2", "64Gi")
    active, standby, holder = await pair(space, spawn)
    names = [f"p{number}" for number in range(150)]
    creating = asyncio.ensure_future(make_pods(space, names, 0.02, requests=CPU))
    await all_bound(space, 40)
    active.kill()
    killed = asyncio.get_running_loop().time()
    before = await bound(space)
    await creating
    await all_bound(space, 150)
    took = asyncio.get_running_loop().time() - killed
    assert before < 150
    assert await leader(space.client) not in ("", holder)
    assert await standby.metric("leader_election_master_status", name="nodewright-scheduler") == 1
    # It waits for the whole lease (5 s, counted from the last renewal, at most 0.5 s before) before it takes over.
    assert took > 4
    await all_told(space, 150 - before)
    (await verdict()).check(names, killed_scheduler=True)


async def test_a_leader_that_slept_finds_itself_replaced_and_places_nothing_more(space, proxy, spawn, verdict):
    """Its bindings wait in the proxy when it is stopped; the standby fills the room; then it is woken."""
    for number in range(4):
        await space.node(f"n{number}", "1", "64Gi")
    active, standby, holder = await pair(space, spawn, first=proxy)
    gate = asyncio.Event()
    held = proxy.add(Fault(hold=gate), client="active", method="POST", path=BINDING)
    names = [f"p{number}" for number in range(80)]
    await make_pods(space, names, requests=CPU)

    async def busy():
        return held.hits >= 32

    await until(busy)
    active.signal(signal.SIGSTOP)
    proxy.cut_requests("active")
    proxy.clear()
    await all_bound(space, 40)
    sent = proxy.count(lambda e: e.client == "active" and "/binding" in e.path and e.server != 0)
    active.signal(signal.SIGCONT)
    assert await active.ended() == 1
    assert "leadership lost" in active.log.read_text()
    assert proxy.count(lambda e: e.client == "active" and "/binding" in e.path and e.server != 0) == sent
    found = await verdict()
    assert overcommitted(found.nodes, found.pods) == []
    assert len(found.bound) == 40
    assert await leader(space.client) not in ("", holder)
    assert standby.code is None


async def test_a_leader_that_cannot_renew_ends_before_another_starts(space, proxy, spawn, verdict):
    for number in range(4):
        await space.node(f"n{number}", "4", "64Gi")
    active, standby, holder = await pair(space, spawn, first=proxy)
    await make_pods(space, ["a"], requests=CPU)
    await all_bound(space, 1)
    lost = proxy.add(Fault(hold=asyncio.Event()), client="active", path=LEASES)
    ended = asyncio.ensure_future(active.ended())
    names = [f"p{number}" for number in range(60)]
    await make_pods(space, names, 0.5, requests=CPU)
    assert await ended == 1
    assert "not renewed for 3 s" in active.log.read_text()
    assert lost.hits
    await all_bound(space, 61)
    assert await leader(space.client) not in ("", holder)
    assert standby.code is None
    await all_told(space, 61)
    (await verdict()).check([*names, "a"])


async def test_a_standby_whose_watch_has_died_catches_up_before_it_places_anything(space, proxy, spawn, verdict):
    await space.node("n", "2", "64Gi")
    active, standby, _ = await pair(space, spawn, second=proxy)
    silent = asyncio.Event()
    proxy.add(Fault(hold_stream=silent), client="standby", path=PODS, limit=1)
    proxy.cut_streams("standby")

    async def stalled():
        return bool(proxy.rules[0].hits)

    await until(stalled)
    names = [f"p{number}" for number in range(20)]
    await make_pods(space, names, requests=CPU)
    await all_bound(space, 20)
    active.kill()
    await space.node("other", "1", "64Gi")
    late = [f"late{number}" for number in range(10)]
    await make_pods(space, late, requests=CPU)
    await all_bound(space, 30)
    found = await verdict()
    assert overcommitted(found.nodes, found.pods) == []
    assert {found.bound[name] for name in late} == {"other"}
    assert standby.code is None


async def test_an_orderly_end_hands_over_at_once(space, spawn, verdict):
    for number in range(6):
        await space.node(f"n{number}", "4", "64Gi")
    active, _, holder = await pair(space, spawn)
    names = [f"p{number}" for number in range(100)]
    creating = asyncio.ensure_future(make_pods(space, names, 0.02, requests=CPU))
    await all_bound(space, 20)
    active.signal(signal.SIGTERM)
    assert await active.ended() == 0
    await creating
    await all_bound(space, 100)
    assert await leader(space.client) not in ("", holder)
    await all_told(space, 100)
    (await verdict()).check(names)


async def test_not_ready_until_all_that_exists_is_known(space, proxy, spawn):
    gate = asyncio.Event()
    proxy.add(Fault(hold=gate), path=PODS)
    process = spawn(proxy=proxy)

    async def answers():
        return (await process.get("/healthz"))[0] == 200

    await until(answers)
    status, text = await process.get("/readyz")
    assert (status, "[-]caches failed: not synced" in text) == (503, True)
    gate.set()
    await process.ready()
    status, text = await process.get("/livez?verbose")
    assert (status, "[+]leaderElection ok" in text) == (200, True)
