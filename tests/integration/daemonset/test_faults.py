"""Bad answers, lost answers, late watches and kills, between the operator and a real API server."""

import asyncio
import contextlib
import os
import random
import signal

import pytest

from nodewright.controlplane.cluster import APISERVER
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import CONTROLLERREVISIONS, LEASES, NAMESPACES, SERVICEACCOUNTS
from support.daemonset_chaos import CREATES, DELETES, PodWatch, SpawnedOperator
from support.fault_proxy import Fault, FaultProxy

from .conftest import World

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]

ALONE = ("--no-leader-elect", "--controllers=daemonset")
NODES = 60
ROLLING = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 10}}}


@pytest.fixture
async def proxy(cluster, tmp_path):
    one = FaultProxy(cluster, tmp_path / "proxy", user="operator")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def spawn(cluster, tmp_path):
    started = []

    def start(name, *arguments, proxy=None):
        kubeconfig = proxy.kubeconfig(name) if proxy else cluster.layout.kubeconfig("operator")
        started.append(SpawnedOperator(name, kubeconfig, tmp_path, *(arguments or ALONE)))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
async def fresh_lease(client):
    """Nobody leads at the start, nor at the end."""

    async def remove():
        with contextlib.suppress(NotFound):
            await client.delete(LEASES, "nodewright-operator", "kube-system")

    await remove()
    yield
    await remove()


@pytest.fixture
async def watch(world):
    one = PodWatch(world)
    yield one
    await one.stop()


async def add_nodes(world, count):
    await asyncio.gather(*(world.add_node(f"n{i:02}") for i in range(count)))


async def all_at(world, watch, image, count, timeout=90.0):
    """Every node has one ready pod of that image, and the status says so."""
    await world.until(
        lambda: (
            len(world.pods()) == count
            and world.images().keys() == set(world._nodes)
            and set(world.images().values()) == {image}
            and watch.ready == count
            and world.observed()
            and world.condition().get("status") == "True"
        ),
        timeout=timeout,
    )
    assert not watch.problems, watch.problems
    by_number = sorted(world.all(CONTROLLERREVISIONS), key=lambda r: r["revision"])
    newest = by_number[-1]["metadata"]["labels"]["controller-revision-hash"]
    assert {p["metadata"]["labels"]["controller-revision-hash"] for p in world.pods()} == {newest}
    template = by_number[-1]["data"]["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == image


async def test_bad_and_lost_answers(world, watch, proxy, spawn):
    await add_nodes(world, 40)
    for which in (CREATES, DELETES):
        lost = proxy.add(Fault(cut_after=True), every=7, **which)
        proxy.add(Fault(cut_before=True), every=9, **which)
        proxy.add(Fault(status=500), every=11, **which)
        proxy.add(Fault(status=429, retry_after=1), every=25, **which)
        proxy.add(Fault(status=409), every=13, **which)
    proxy.add(Fault(cut_after=True), every=3, path=r"/daemonsets/[^/]+/status$")
    proxy.add(Fault(cut_after=True), every=2, method="POST", path="/controllerrevisions$")
    proxy.add(Fault(lag=0.3), method="GET", path=r"^/api/v1/pods$")
    await world.create(**ROLLING)
    spawn("one", proxy=proxy)
    await all_at(world, watch, "v1", 40)
    watch.expect()
    await world.set_image("v2")
    await all_at(world, watch, "v2", 40)
    assert watch.lowest >= 40 - 10
    assert lost.hits >= 3
    assert proxy.committed_unseen(r"/pods$") >= 3


async def test_a_watch_that_stands_still(world, watch, proxy, spawn):
    """Pods come into being and nothing of them is seen: no second ones are made, whatever else happens."""
    await add_nodes(world, 10)
    hold = asyncio.Event()
    process = spawn("one", proxy=proxy)
    await process.ready()
    rule = proxy.add(Fault(hold_stream=hold), method="GET", path=r"^/api/v1/pods$")
    proxy.cut_streams()  # they come back, and pods' stands still
    await world.create(**ROLLING)
    await world.until(lambda: len(world.pods()) == 10, timeout=40)
    await world.add_node("late")  # a reason to look again
    await asyncio.sleep(2)  # time for what must not happen
    assert (len(world.pods()), watch.problems) == (10, [])
    assert rule.hits
    hold.set()
    proxy.clear()
    await all_at(world, watch, "v1", 11)


async def test_killed_at_any_moment(world, watch, proxy, spawn):
    dice = random.Random(1)
    await add_nodes(world, NODES)
    proxy.add(Fault(delay=0.1), **CREATES)
    proxy.add(Fault(delay=0.05), **DELETES)
    await world.create(**ROLLING)
    for goal in sorted(dice.sample(range(1, NODES), 3)):
        process = spawn(f"create{goal}", proxy=proxy)
        await world.until(lambda goal=goal: len(world.pods()) >= goal, timeout=60)
        process.kill()
        proxy.cut_requests(process.name)
    last = spawn("last", proxy=proxy)
    await all_at(world, watch, "v1", NODES)
    assert watch.created == NODES
    watch.expect()
    await world.set_image("v2")
    for goal in sorted(dice.sample(range(1, NODES - 10), 3)):
        await world.until(lambda goal=goal: list(world.images().values()).count("v2") >= goal, timeout=60)
        last.kill()
        proxy.cut_requests(last.name)
        last = spawn(f"roll{goal}", proxy=proxy)
    await all_at(world, watch, "v2", NODES)
    assert watch.lowest >= NODES - 10
    assert watch.created == 2 * NODES


async def test_the_leader_changes_in_the_middle_of_a_burst(world, watch, proxy, fresh_lease, spawn):
    """One that stops breathing must not go on where it was once it breathes again."""
    await add_nodes(world, NODES)
    proxy.add(Fault(delay=0.15), **CREATES)
    leading = ("--leader-elect", "--controllers=daemonset")
    first = spawn("first", *leading, proxy=proxy)
    await first.ready()
    await world.create(**ROLLING)
    await world.until(lambda: len(world.pods()) >= 7, timeout=60)
    first.signal(signal.SIGSTOP)
    second = spawn("second", *leading, proxy=proxy)
    await all_at(world, watch, "v1", NODES)
    first.signal(signal.SIGCONT)
    assert await first.ended() != 0  # it says that it has lost the Lease
    await world.set_image("v2")
    await all_at(world, watch, "v2", NODES)
    assert second.code is None


async def test_the_api_server_is_killed_in_a_rollout(make_cluster, start_cluster, binaries, tmp_path):
    """On a cluster of its own: others share theirs."""
    cluster = make_cluster("restart")
    await asyncio.to_thread(start_cluster, cluster)
    process = None
    async with Client(load(cluster.kubeconfig)) as client:
        namespace = "t-restart"
        await client.create(NAMESPACES, {"metadata": {"name": namespace}})
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, namespace)
        world = World(client, namespace)
        await world.start()
        watch = PodWatch(world)
        try:
            await add_nodes(world, 30)
            await world.create(**ROLLING)
            process = SpawnedOperator("one", cluster.layout.kubeconfig("operator"), tmp_path, *ALONE)
            await all_at(world, watch, "v1", 30)
            watch.expect()
            await world.set_image("v2")
            await world.until(lambda: list(world.images().values()).count("v2") >= 5)
            record = cluster.component(APISERVER).running()
            os.kill(record.pid, signal.SIGKILL)
            cluster.component(APISERVER).wait_exit(record, 10)
            cluster.component(APISERVER).stop()
            await asyncio.to_thread(cluster.start_apiserver, binaries["kube-apiserver"])
            await all_at(world, watch, "v2", 30, timeout=120)
            assert watch.lowest >= 20
            assert process.code is None
        finally:
            await watch.stop()
            await world.stop()
            if process is not None:
                process.kill()
