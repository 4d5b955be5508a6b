"""Restarts at any moment, of schedulers and of the API server."""

import asyncio
import os
import random
import signal

import pytest

from nodewright.controlplane.cluster import APISERVER
from support.fault_proxy import BINDING, EVENTS, Fault

from .load import all_bound, all_told, bound, make_pods

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]

CPU = {"cpu": "100m"}


async def test_killed_under_load_beside_a_failing_server(space, proxy, spawn, verdict):
    """No room is free at the end: a Pod that is not counted would show."""
    for number in range(6):
        await space.node(f"n{number}", "2", "64Gi")
    proxy.add(Fault(cut_after=True), method="POST", path=BINDING, every=5)
    proxy.add(Fault(status=500), method="POST", path=BINDING, every=12)
    proxy.add(Fault(delay=0.4), method="POST", path=BINDING)
    names = [f"p{number}" for number in range(120)]
    creating = asyncio.ensure_future(make_pods(space, names, 0.1, requests=CPU))
    dice = random.Random(3)
    kills = 0
    while await bound(space) < 120 and kills < 5:
        process = spawn(proxy=proxy, name=f"life{kills}")
        goal = min(await bound(space) + dice.randint(5, 25), 120)
        await all_bound(space, goal)
        process.kill()
        kills += 1
    await creating
    spawn(proxy=proxy, name="last")
    await all_bound(space, 120)
    (await verdict()).check(names, killed_scheduler=True)
    assert kills >= 3
    assert proxy.committed_unseen() >= 10


async def test_the_api_server_is_killed_under_load(space, lab, binaries, spawn, verdict):
    for number in range(8):
        await space.node(f"n{number}", "2", "64Gi")
    names = [f"p{number}" for number in range(160)]
    await make_pods(space, names, requests=CPU)
    process = spawn()
    await all_bound(space, 30)
    record = lab.component(APISERVER).running()
    os.kill(record.pid, signal.SIGKILL)
    lab.component(APISERVER).wait_exit(record, 10)
    lab.component(APISERVER).stop()
    await asyncio.to_thread(lab.start_apiserver, binaries["kube-apiserver"])
    await all_bound(space, 160)
    await all_told(space, 160)
    assert process.code is None
    # The killed server may have stored a binding and not have logged it.
    (await verdict()).check(names, killed_server=True)


async def test_ended_in_good_order_under_load_it_has_told_all_it_did(space, proxy, spawn, verdict):
    for number in range(5):
        await space.node(f"n{number}", "4", "64Gi")
    late = proxy.add(Fault(delay=0.1), method="POST", path=EVENTS, every=2)
    names = [f"p{number}" for number in range(100)]
    await make_pods(space, names, requests=CPU)
    for turn in range(2):
        process = spawn(proxy=proxy, name=f"turn{turn}")
        await process.ready()
        await all_bound(space, 40 * (turn + 1))
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    spawn(proxy=proxy, name="last")
    await all_bound(space, 100)
    await all_told(space, 100)
    (await verdict()).check(names)
    assert late.hits >= 20
