"""Graceful shutdown: groups, texts, and the client of logind against a bus of the test's own."""

import asyncio
import contextlib
import os

import pytest

from nodewright.kube.objects import ObjectReference
from nodewright_agent import config as settings
from nodewright_agent.node import logind
from nodewright_agent.node.shutdown import REFUSAL, ShutdownManager, groups, periods
from nodewright_agent.pods.model import PodState, Step, StepState
from nodewright_agent.server.nodemetrics import NodeCounters
from support.eviction_builders import pod
from support.fake_logind import FakeBus


def load(**given):
    return settings.load(None, **{"node_name": "n1", "node_ip": "192.0.2.1", **given})


def test_periods_and_groups():
    assert periods(load()) == []
    given = periods(load(shutdown_grace_period=30, shutdown_grace_period_critical_pods=10))
    assert [(one.priority, one.shutdown_grace_period_seconds) for one in given] == [(0, 20), (2_000_000_000, 10)]
    pods = [pod("a"), pod("low", priority=-5), pod("critical", priority=2_000_001_000)]
    made = groups(given, pods)
    assert [(one.grace, [p.metadata.name for p in one.pods]) for one in made] == [
        (20, ["a", "low"]),
        (10, ["critical"]),
    ]
    assert [one.grace for one in groups(given, pods[2:])] == [10], "nobody waits for an empty group"


def test_a_part_longer_than_the_whole_is_refused():
    with pytest.raises(settings.ConfigError, match="shutdown_grace_period_critical_pods"):
        load(shutdown_grace_period=5, shutdown_grace_period_critical_pods=10)


class Worker:
    def __init__(self, order, name, **spec):
        self.pod, self.state, self.order, self.end_of = pod(name, **spec), PodState(), order, None

    def end(self, termination):
        self.order.append(self.pod.metadata.name)
        self.end_of = termination
        self.state.teardown = Step(StepState.READY)


class Source:
    def __init__(self, *announced):
        self.announced, self.released = announced, asyncio.Event()

    @contextlib.asynccontextmanager
    async def watch(self, delay):
        self.delay = delay

        async def every():
            for one in self.announced:
                yield one
            await asyncio.Event().wait()

        yield every()

    def release(self):
        self.released.set()


class Events:
    def __init__(self):
        self.reasons = []

    def event(self, ref, type, reason, message):
        self.reasons.append((reason, message))


async def test_pods_end_in_their_order_and_the_host_may_go():
    order, reported = [], []
    critical = Worker(order, "critical", priority=2_000_000_000)
    plain = Worker(order, "plain", terminationGracePeriodSeconds=3)
    source, events = Source(True), Events()
    given = periods(load(shutdown_grace_period=30, shutdown_grace_period_critical_pods=10))
    manager = ShutdownManager(source, given, lambda: {"u-critical": critical, "u-plain": plain}, reported.append,
                              events, ObjectReference(), NodeCounters(), lambda: 100.0)  # fmt: skip
    assert manager.admit(plain.pod) is None
    task = asyncio.create_task(manager.run())
    async with asyncio.timeout(30):
        await source.released.wait()
    task.cancel()
    assert order == ["plain", "critical"]
    assert (source.delay, reported) == (30.0, ["node is shutting down"])
    end = plain.end_of
    assert (end.reason, end.phase, end.deadline) == ("Terminated", "Failed", 103.0)
    assert end.message == end.disruption == "Pod was terminated in response to imminent node shutdown."
    assert critical.end_of.deadline == 110.0
    assert manager.admit(plain.pod) == REFUSAL
    assert events.reasons == [("NodeShutdown", "Shutdown manager detected shutdown event")]


async def test_logind_is_asked_for_a_lock_and_tells_of_the_shutdown(tmp_path):
    bus = FakeBus(tmp_path / "bus", longest=30_000_000)
    serving = asyncio.create_task(bus.serve())
    source = logind.Logind(str(tmp_path / "bus"))
    try:
        async with asyncio.timeout(30), source.watch(30.0) as announced:
            assert bus.members == ["Hello", "Get", "AddMatch", "Inhibit"]
            bus.announce(True)
            assert await anext(announced) is True
            os.set_blocking(bus.read, False)
            with pytest.raises(BlockingIOError):
                os.read(bus.read, 1)
            source.release()
            assert os.read(bus.read, 1) == b"", "the lock is given back"
        await serving
    finally:
        bus.close()


async def test_a_delay_that_logind_does_not_give_is_said(tmp_path):
    bus = FakeBus(tmp_path / "bus", longest=5_000_000)
    serving = asyncio.create_task(bus.serve())
    try:
        with pytest.raises(OSError, match="logind waits 5 s at most, 30 s are asked for: set InhibitDelayMaxSec=30"):
            async with logind.Logind(str(tmp_path / "bus")).watch(30.0):
                pass
        await serving
    finally:
        os.close(bus.write)
        bus.close()


async def test_without_a_bus_it_says_so(tmp_path):
    with pytest.raises(OSError, match="is this a host with systemd"):
        async with logind.Logind(str(tmp_path / "none")).watch(1.0):
            pass
