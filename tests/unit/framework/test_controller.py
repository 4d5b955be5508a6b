"""The worker loop of Controller, with caches that never run."""

import asyncio
import logging

import pytest

from nodewright.framework.controller import Controller, Result, TerminalError
from nodewright.framework.logs import ContextFilter
from nodewright.framework.ratelimit import ItemBackoff, RetryLimiter, TokenBucket
from nodewright.kube.cache import WatchCache
from nodewright.kube.errors import ApiError, Conflict, ServerUnavailable
from nodewright.kube.resources import PODS


class Scripted(Controller):
    """Does for each call what the script says, then nothing."""

    name = "scripted"
    workers = 2

    def __init__(self, script=()):
        super().__init__(client=None)
        self.queue._limiter = RetryLimiter(ItemBackoff(0.001, 0.01), TokenBucket(1e6, 1000))
        self.script = list(script)
        self.calls = []
        self.quiet = asyncio.Event()

    async def reconcile(self, key):
        self.calls.append(key)
        step = self.script.pop(0) if self.script else None
        if not self.script:
            self.quiet.set()
        if isinstance(step, Exception):
            raise step
        return step


async def settle():
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def run(controller, keys=("ns/a",)):
    task = asyncio.create_task(controller.run_workers())
    for key in keys:
        controller.queue.add(key)
    async with asyncio.timeout(5):
        await controller.quiet.wait()
    await settle()
    assert controller.queue.idle
    controller.queue.shut_down()
    await task


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (Conflict(409, "Conflict", "changed"), logging.INFO, "conflict, will retry: changed"),
        (ServerUnavailable(0, "", "no route"), logging.WARNING, "the API server can't serve us now"),
        (ApiError(403, "Forbidden", "may not"), logging.ERROR, "may not"),
        (ValueError("a bug"), logging.ERROR, "unexpected error"),
    ],
)
async def test_errors_are_retried_and_told_at_their_level(caplog, error, level, text):
    caplog.set_level(logging.INFO)
    controller = Scripted([error, error, None])
    await run(controller)
    assert controller.calls == ["ns/a"] * 3
    records = [r for r in caplog.records if text in r.getMessage()]
    assert [r.levelno for r in records] == [level, level]
    assert all(bool(r.exc_info) == isinstance(error, ValueError) for r in records)
    assert controller.queue.failures("ns/a") == 0  # success starts over


async def test_terminal_errors_are_not_retried(caplog):
    controller = Scripted([TerminalError("hopeless")])
    await run(controller)
    assert controller.calls == ["ns/a"]
    assert "not retried: hopeless" in caplog.text


async def test_requeue_after():
    controller = Scripted([Result(requeue_after=0.001), None])
    await run(controller)
    assert controller.calls == ["ns/a", "ns/a"]


async def test_one_failing_key_does_not_hold_up_others():
    controller = Scripted([ValueError("x"), None, None])
    await run(controller, ("ns/a", "ns/b"))
    assert sorted(controller.calls) == ["ns/a", "ns/a", "ns/b"]


async def test_a_key_waits_for_the_guard_without_holding_a_worker():
    controller = Scripted([None, None])
    fresh = asyncio.Event()
    held = {"ns/held"}
    controller.guard.is_ready = lambda key: key not in held

    async def ready(key, timeout):
        await fresh.wait()
        held.clear()
        return True

    controller.guard.ready = ready
    task = asyncio.create_task(controller.run_workers())
    for key in ("ns/held", "ns/held", "ns/free"):
        controller.queue.add(key)
    await settle()
    assert controller.queue.idle
    assert controller.calls == ["ns/free"]
    fresh.set()
    async with asyncio.timeout(5):
        await controller.quiet.wait()
    assert controller.calls == ["ns/free", "ns/held"]
    controller.queue.shut_down()
    await task


async def test_log_lines_carry_the_object_and_a_reconcile_id(caplog):
    class Talking(Scripted):
        async def reconcile(self, key):
            self.log.warning("hello")
            return await super().reconcile(key)

    caplog.handler.addFilter(ContextFilter())
    controller = Talking()
    await run(controller)
    (record,) = [r for r in caplog.records if r.getMessage() == "hello"]
    assert (record.controller, record.namespace, record.object) == ("scripted", "ns", "a")
    assert len(record.reconcileID) == 8


async def test_a_shared_cache_feeds_each_controller_with_its_own_keys():
    cache = WatchCache(None, PODS, type=dict)
    first, second = Scripted(), Scripted()
    first.share(cache, enqueue=lambda old, new: ["first"])
    second.share(cache, enqueue=lambda old, new: ["second"])
    assert first.caches() == second.caches() == [cache]
    cache._dispatch([(None, {"metadata": {"name": "p", "namespace": "ns"}})])
    assert await first.queue.get() == "first"
    assert await second.queue.get() == "second"
    assert not len(first.queue)
    assert not len(second.queue)
