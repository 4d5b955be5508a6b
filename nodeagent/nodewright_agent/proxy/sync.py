"""Carries changes of the table into the kernel: bundled, retried, and put right when others interfere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from nodewright_agent.proxy.backends.base import Backend
from nodewright_agent.proxy.conntrack import Conntrack
from nodewright_agent.proxy.former import FormerBackends
from nodewright_agent.proxy.health import Health
from nodewright_agent.proxy.metrics import ProxyMetrics
from nodewright_agent.proxy.model import Frontend
from nodewright_agent.proxy.table import TableBuilder

log = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0
_UDP = 17


class _Switch(NamedTuple):
    """A backend that is to take the present one's place, and who waits for that."""

    backend: Backend
    take_over: bool
    done: asyncio.Future[None]


class Syncer:
    """Owns the backend: nobody else calls it. All calls into the kernel are made by one thread, one at a time."""

    def __init__(
        self,
        builder: TableBuilder,
        backend: Backend,
        *,
        health: Health,
        metrics: ProxyMetrics,
        coalesce: float = 0.03,
        verify_interval: float = 3600.0,
        failed: Callable[[Exception], None] | None = None,
        synced: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Take what to sync from and to; `failed` is told of every sync that did not work, `synced` of the others."""
        self._builder, self._backend = builder, backend
        self._health, self._metrics = health, metrics
        self._coalesce, self._verify_interval = coalesce, verify_interval
        self._failed, self._told = failed, synced
        self._wake = asyncio.Event()
        self._full = True
        self._upkeep_due = False
        self._verify_due = False
        self._triggered: list[float] = []
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="proxy")
        self._conntrack: Conntrack | None = None
        self._synced = asyncio.Event()
        self._switch: _Switch | None = None
        self._former = FormerBackends(self.call)
        self._unwatch: Callable[[], None] = lambda: None

    def poke(self) -> None:
        """Note that the builder has something new."""
        self._health.queued()
        self._metrics.last_queued.set_to_current_time()
        self._wake.set()

    def endpoint_changed_at(self, moment: float) -> None:
        """Note when (seconds since the epoch) the cause of a change happened, to measure how long it took."""
        self._triggered.append(moment)

    def restore(self, reason: str) -> None:
        """Replace everything in the kernel: somebody changed it."""
        if not self._full:
            log.warning("proxy rules were changed, restoring them", extra={"reason": reason})
            self._metrics.restored.inc()
        self._full = True
        self.poke()

    async def wait_synced(self) -> None:
        """Wait for the first sync that worked."""
        await self._synced.wait()

    async def call(self, function: Callable[[], T]) -> T:
        """Run something that blocks in the backend's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def submit(self, function: Callable[[], T]) -> T:
        """Run something that blocks in the backend's thread, from another thread."""
        return self._executor.submit(function).result()

    @property
    def backend(self) -> Backend:
        """The backend in use; call it by `call` or `submit` only."""
        return self._backend

    async def switch(self, backend: Backend, *, take_over: bool) -> None:
        """Program another backend, and only then remove the rules of the present one: traffic goes on meanwhile.

        `take_over`: both are of one kind, and the new one goes on with the rules of the old one. Raises what the new
        backend raises; then its rules are removed again and the old one stays. One switch at a time, while `run` runs.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._switch = _Switch(backend, take_over, done)
        self._wake.set()
        await done

    async def open(self) -> None:
        """Open the backend in the process's network namespace. Raises what the backend raises."""
        await self.call(self._open)

    def _open(self) -> None:
        self._backend.open()
        try:
            self._conntrack = Conntrack()
        except OSError as error:
            log.warning("no conntrack here: stale UDP flows will stay", extra={"error": str(error)})

    async def run(self) -> None:
        """Sync whenever something is new, until cancelled. Rules stay in the kernel then (as upstream)."""
        loop = asyncio.get_running_loop()
        self._unwatch = self._backend.watch(self.restore)
        verify = loop.call_later(self._verify_interval, self._want_verify)
        self._waiting = loop.call_later(0.0, self._wake.set)
        retry = _FIRST_RETRY
        self.poke()
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(self._coalesce)
                self._wake.clear()
                try:
                    await self._change_backend()
                    await self._once()
                    await self._remove_former()
                    retry = _FIRST_RETRY
                except Exception as error:
                    self._fail(error, retry)
                    loop.call_later(retry, self._wake.set)
                    retry = min(retry * 2, _LAST_RETRY)
                if self._verify_due:
                    self._verify_due = False
                    verify = loop.call_later(self._verify_interval, self._want_verify)
        finally:
            verify.cancel()
            self._waiting.cancel()
            self._unwatch()

    async def _change_backend(self) -> None:
        wanted, self._switch = self._switch, None
        if wanted is None or wanted.done.done():
            return
        new, old = wanted.backend, self._backend
        try:
            await self.call(new.open)
            self._builder.take()  # the whole table has it
            table = self._builder.table()
            await self.call(lambda: new.replace(table))
        except Exception as error:
            self._full = True  # what was taken, and what a failed takeover has left
            await self.call(lambda: _abandon(new, keep_rules=wanted.take_over))
            if not wanted.done.done():
                wanted.done.set_exception(error)
            return
        self._unwatch()
        self._backend = new
        self._unwatch = new.watch(self.restore)
        self._full = False
        await self._former.taken_over(new.name)
        if wanted.take_over:
            await self.call(old.close)
        else:
            self._former.add(old)
        self._upkeep_due = True
        # IPVS translates by its own table: what it leaves in conntrack keeps later datagrams from being translated.
        udp = {key: value for key, value in table.frontends.items() if key[-3] == _UDP}
        await self._forget_flows(udp, every=old.name == "ipvs" and not wanted.take_over)
        if not wanted.done.done():
            wanted.done.set_result(None)

    async def _remove_former(self) -> None:
        pause = await self._former.remove()
        if pause is not None:
            self._waiting.cancel()
            self._waiting = asyncio.get_running_loop().call_later(pause, self._wake.set)

    def _want_verify(self) -> None:
        self._verify_due = True
        self._wake.set()

    def _want_upkeep(self) -> None:
        self._upkeep_due = True
        self._wake.set()

    def _fail(self, error: Exception, retry: float) -> None:
        self._full = True
        self._metrics.failures.labels(self._backend.name).inc()
        log.error("proxy sync failed", extra={"error": str(error), "retry_seconds": retry}, exc_info=error)
        if self._failed is not None:
            self._failed(error)

    async def _once(self) -> None:
        began = time.perf_counter()
        triggered, self._triggered = self._triggered, []
        if self._verify_due and not self._full:
            wrong = await self.call(self._backend.verify)
            if wrong:
                self.restore("; ".join(wrong))
        full, self._full = self._full, False
        delta = self._builder.take()
        udp: dict[bytes, Frontend]
        if full:
            table = self._builder.table()
            await self.call(lambda: self._backend.replace(table))
            udp = {key: value for key, value in table.frontends.items() if key[-3] == _UDP}
        elif delta:
            await self.call(lambda: self._backend.apply(delta))
            udp = {key: value for key, value in delta.frontends.items() if value is not None and key[-3] == _UDP}
        if full or delta:
            self._done(time.perf_counter() - began, triggered, full=full)
            await self._forget_flows(udp)
        if self._told is not None:
            await self._told()
        if not self._wake.is_set():
            self._health.updated()
        if full or delta or self._upkeep_due:
            self._upkeep_due = False
            pause = await self.call(self._backend.upkeep)
            if pause is not None:
                asyncio.get_running_loop().call_later(pause, self._want_upkeep)

    def _done(self, seconds: float, triggered: list[float], *, full: bool) -> None:
        first = not self._synced.is_set()
        self._synced.set()
        self._metrics.sync.observe(seconds)
        (self._metrics.full_sync if full else self._metrics.partial_sync).observe(seconds)
        self._metrics.last_sync.set_to_current_time()
        now = time.time()
        if not first:  # what happened before we started is no measure of us
            for moment in triggered:
                self._metrics.programming.observe(max(0.0, now - moment))
        log.log(
            logging.INFO if full else logging.DEBUG,
            "proxy rules synced",
            extra={"full": full, "seconds": round(seconds, 4), "services": self._builder.size[0]},
        )

    async def _forget_flows(self, udp: dict[bytes, Frontend], *, every: bool = False) -> None:
        conntrack = self._conntrack
        if conntrack is None or not any(frontend.serving for frontend in udp.values()):
            return
        with self._metrics.conntrack_duration.time():
            deleted = await self.call(lambda: conntrack.forget(udp, every=every))
        self._metrics.conntrack_deleted.inc(deleted)

    async def close(self) -> None:
        """Close sockets after the call under way has ended."""
        await self.call(self._close)
        self._executor.shutdown(wait=True)

    def _close(self) -> None:
        self._backend.close()
        self._former.close()
        if self._conntrack is not None:
            self._conntrack.close()
            self._conntrack = None


def _abandon(backend: Backend, *, keep_rules: bool) -> None:
    """Undo what a backend has begun; the error that led here is the one to report."""
    try:
        if not keep_rules:
            backend.cleanup()
    except Exception as error:
        log.warning("rules of a proxy mode that failed were not removed", extra={"error": str(error)})
    finally:
        backend.close()
