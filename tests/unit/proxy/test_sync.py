"""Bundling, retrying and restoring, with a backend that only remembers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from nodewright_agent.proxy import former, sync
from nodewright_agent.proxy.backends.base import BackendError, Traffic
from nodewright_agent.proxy.health import Health
from nodewright_agent.proxy.metrics import ProxyMetrics
from nodewright_agent.proxy.model import Delta, Table, patched
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.sync import Syncer
from nodewright_agent.proxy.table import TableBuilder
from unit.proxy.proxy_objects import service


class Recorder:
    """A backend that keeps the table in memory."""

    name = "recorder"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.table = Table({}, frozenset(), frozenset())
        self.failures = 0
        self.drift: list[str] = []
        self.changed: Callable[[str], None] | None = None
        self.called = threading.Event()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.failures:
            self.failures -= 1
            raise BackendError("refused")

    def open(self) -> None: ...

    def replace(self, table: Table) -> None:
        self._call("replace")
        self.table = table

    def apply(self, delta: Delta) -> None:
        self._call("apply")
        self.table = patched(self.table, delta)

    def verify(self) -> list[str]:
        self.calls.append("verify")
        found, self.drift = self.drift, []
        return found

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        self.changed = changed
        return lambda: None

    def upkeep(self) -> float | None:
        return None

    def counters(self) -> dict[bytes, Traffic]:
        return {}

    def describe(self, key: bytes) -> list[str]:
        return []

    def cleanup(self) -> None: ...

    def close(self) -> None:
        self.calls.append("close")


class Bench:
    def __init__(self, **options: Any) -> None:
        self.backend, self.builder = Recorder(), TableBuilder(NodeView("here"))
        self.failed: list[Exception] = []
        self.metrics = ProxyMetrics()
        options = {"coalesce": 0.0, **options}
        self.health = Health(lambda: 0.0)
        self.syncer = Syncer(
            self.builder,
            self.backend,
            health=self.health,
            metrics=self.metrics,
            failed=self.failed.append,
            **options,
        )

    def add(self, number: int) -> None:
        self.builder.set_service(f"default/s{number}", service(f"s{number}", f"10.96.0.{number}"))
        self.syncer.poke()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - plain objects announce nothing
                await asyncio.sleep(0.001)

    async def settled(self) -> None:
        await self.until(lambda: self.backend.table == self.builder.table() and not self.builder.dirty)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(sync, "_FIRST_RETRY", 0.01)
    made = Bench()
    async with running(made):
        yield made


class running:
    """Runs a bench's syncer for the length of a block."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def __aenter__(self) -> None:
        await self.bench.syncer.open()
        self.task = asyncio.create_task(self.bench.syncer.run())
        await self.bench.syncer.wait_synced()

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.bench.syncer.close()


async def test_the_first_sync_replaces_and_later_ones_apply(bench: Bench) -> None:
    assert bench.backend.calls == ["replace"]
    bench.add(1)
    await bench.settled()
    assert bench.backend.calls == ["replace", "apply"]
    assert len(bench.backend.table.frontends) == 1


async def test_changes_at_once_are_one_sync(bench: Bench) -> None:
    for number in range(1, 50):
        bench.add(number)
    await bench.settled()
    assert bench.backend.calls == ["replace", "apply"]


async def test_a_poke_without_a_difference_does_nothing(bench: Bench) -> None:
    bench.builder.set_service("default/unknown", None)
    bench.syncer.poke()
    await bench.until(lambda: not bench.builder.dirty)
    assert bench.backend.calls == ["replace"]


async def test_after_a_failure_everything_is_replaced(bench: Bench) -> None:
    bench.backend.failures = 2
    bench.add(1)
    await bench.settled()
    assert bench.backend.calls == ["replace", "apply", "replace", "replace"]
    assert [str(error) for error in bench.failed] == ["refused", "refused"]
    assert bench.metrics.failures.labels("recorder")._value.get() == 2
    await bench.until(lambda: bench.health.report()["lastUpdated"] == bench.health.report()["currentTime"])


async def test_foreign_changes_are_undone(bench: Bench) -> None:
    assert bench.backend.changed is not None
    bench.backend.changed("table deleted")
    await bench.until(lambda: bench.backend.calls == ["replace", "replace"])
    assert bench.metrics.restored._value.get() == 1


async def test_verification_runs_by_itself_and_repairs() -> None:
    made = Bench(verify_interval=0.01)
    made.backend.drift = ["something is missing"]
    async with running(made):
        await made.until(lambda: made.backend.calls.count("verify") >= 2)
    assert made.backend.calls[:3] == ["replace", "verify", "replace"]
    assert made.backend.calls.count("replace") == 2, "without drift there is nothing to repair"


async def test_stopping_closes_the_backend_and_removes_nothing() -> None:
    made = Bench()
    async with running(made):
        pass
    assert made.backend.calls == ["replace", "close"]


class Other(Recorder):
    """A backend of another kind, that may refuse."""

    name = "other"

    def __init__(self, log: list[str], *, broken: str = "") -> None:
        super().__init__()
        self.log, self.broken = log, broken

    def open(self) -> None:
        self._note("open")

    def replace(self, table: Table) -> None:
        self._note("replace")
        self.table = table

    def cleanup(self) -> None:
        self._note("cleanup")

    def _note(self, what: str) -> None:
        self.log.append(f"new {what}")
        if what == self.broken:
            raise BackendError(f"cannot {what}")


def spy_on_old(bench: Bench, log: list[str], failures: int = 0) -> None:
    def cleanup() -> None:
        nonlocal failures
        log.append("old cleanup")
        if failures:
            failures -= 1
            raise BackendError("busy")

    bench.backend.cleanup = cleanup  # type: ignore[method-assign]
    bench.backend.close = lambda: log.append("old close")  # type: ignore[method-assign]


async def test_a_switch_programs_the_new_backend_before_the_old_one_goes(bench: Bench) -> None:
    log: list[str] = []
    spy_on_old(bench, log)
    bench.add(1)
    await bench.settled()
    new = Other(log)
    await bench.syncer.switch(new, take_over=False)
    await bench.until(lambda: "old close" in log)
    assert log == ["new open", "new replace", "old cleanup", "old close"]
    assert bench.syncer.backend is new
    assert new.table == bench.builder.table()
    bench.add(2)
    await bench.until(lambda: len(new.table.frontends) == 2)
    assert bench.backend.calls == ["replace", "apply"], "the old one hears of nothing any more"
    assert bench.failed == []
    assert new.changed is not None, "it is watched"


@pytest.mark.parametrize("broken", ["open", "replace"])
async def test_a_backend_that_fails_leaves_the_old_one_in_place(bench: Bench, broken: str) -> None:
    log: list[str] = []
    spy_on_old(bench, log)
    with pytest.raises(BackendError, match=f"cannot {broken}"):
        await bench.syncer.switch(Other(log, broken=broken), take_over=False)
    assert log[-1] == "new cleanup"
    assert "old cleanup" not in log
    assert bench.syncer.backend is bench.backend
    bench.add(1)
    await bench.settled()


async def test_changes_during_a_failed_switch_are_not_lost(bench: Bench) -> None:
    bench.builder.set_service("default/s1", service("s1", "10.96.0.1"))
    with pytest.raises(BackendError):
        await bench.syncer.switch(Other([], broken="replace"), take_over=False)
    await bench.settled()
    assert len(bench.backend.table.frontends) == 1


async def test_taking_over_removes_nothing(bench: Bench) -> None:
    log: list[str] = []
    spy_on_old(bench, log)
    await bench.syncer.switch(Other(log), take_over=True)
    assert log == ["new open", "new replace", "old close"]


async def test_rules_of_the_old_backend_are_removed_again_until_that_works(bench: Bench) -> None:
    log: list[str] = []
    spy_on_old(bench, log, failures=2)
    await bench.syncer.switch(Other(log), take_over=False)
    await bench.until(lambda: "old close" in log)
    assert log.count("old cleanup") == 3
    assert [str(error) for error in bench.failed] == ["busy", "busy"]


class Drainer(Recorder):
    """A backend whose connections end with its rules."""

    name = "drainer"

    def __init__(self) -> None:
        super().__init__()
        self.busy = 2

    def retire(self) -> float | None:
        self.calls.append("retire")
        self.busy -= 1
        return 0.01 if self.busy > 0 else None

    def cleanup(self) -> None:
        self.calls.append("cleanup")


async def test_connections_through_the_old_backend_may_end(bench: Bench) -> None:
    drainer, last = Drainer(), Recorder()
    await bench.syncer.switch(drainer, take_over=True)
    await bench.syncer.switch(last, take_over=False)
    await bench.until(lambda: "close" in drainer.calls)
    assert drainer.calls == ["replace", "retire", "retire", "cleanup", "close"]


async def test_they_may_not_take_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "LINGER", 0.05)
    drainer = Drainer()
    drainer.busy = 10**9
    await bench.syncer.switch(drainer, take_over=True)
    await bench.syncer.switch(Recorder(), take_over=False)
    await bench.until(lambda: "close" in drainer.calls)
    assert drainer.calls[-2:] == ["cleanup", "close"]
    assert "retire" in drainer.calls


async def test_switching_back_takes_the_draining_rules_over(bench: Bench) -> None:
    drainer, again = Drainer(), Drainer()
    drainer.busy = 10**9
    await bench.syncer.switch(drainer, take_over=True)
    await bench.syncer.switch(Recorder(), take_over=False)
    await bench.syncer.switch(again, take_over=False)
    assert drainer.calls[-1] == "close"
    assert "cleanup" not in drainer.calls, "they are the new one's"
    assert bench.syncer.backend is again
