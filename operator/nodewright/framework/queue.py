"""The work queue: client-go's workqueue semantics for asyncio.

A key that is added while it waits stays there once; a key that is added while it is worked on comes back when the
work is done. So no key is ever worked on twice at the same time, and no change is ever missed. One event loop only;
no locks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from nodewright.framework import metrics
from nodewright.framework.ratelimit import RetryLimiter

K = TypeVar("K", bound=Hashable)


class QueueShutDown(Exception):
    """`get` was called on, or woken by, a queue that is shut down."""


class WorkQueue(Generic[K]):
    """Keys waiting for work. `name` labels the metrics."""

    def __init__(self, name: str, *, limiter: RetryLimiter | None = None) -> None:
        """`limiter` decides the delays of `add_rate_limited`; client-go's default when absent."""
        self.name = name
        self._limiter = limiter or RetryLimiter()
        self._order: deque[K] = deque()
        self._dirty: dict[K, float] = {}  # key -> when it was added (monotonic)
        self._processing: dict[K, float] = {}  # key -> when it was taken
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._depth = metrics.DEPTH.labels(name, name)
        self._adds = metrics.ADDS.labels(name, name)
        self._retries = metrics.RETRIES.labels(name, name)
        self._queue_time = metrics.QUEUE_TIME.labels(name, name)
        self._work_time = metrics.WORK_TIME.labels(name, name)
        metrics.AGES.queues.add(self)

    def __len__(self) -> int:
        """Keys that wait, without delayed ones and those in work."""
        return len(self._order)

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing is in work (delayed keys may exist)."""
        return not self._dirty and not self._processing

    def started(self) -> list[float]:
        """Monotonic times at which the keys now in work were taken."""
        return list(self._processing.values())

    def add(self, key: K) -> None:
        """Let the key be worked on as soon as possible; no effect if it waits already, or after shut-down."""
        if self._closed or key in self._dirty:
            return
        self._adds.inc()
        self._dirty[key] = time.monotonic()
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, delay: float) -> None:
        """Add the key after `delay` seconds. Of several delayed adds of a key the earliest counts."""
        if self._closed:
            return
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._fire, key)

    def add_rate_limited(self, key: K) -> float:
        """Add the key when the rate limiter allows; give the delay in seconds."""
        delay = self._limiter.when(key)
        self._retries.inc()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure starts with the smallest delay again."""
        self._limiter.forget(key)

    def failures(self, key: K) -> int:
        """How often the key was rate-limited in a row."""
        return self._limiter.failures(key)

    async def get(self) -> K:
        """Wait for a key and take it; `done` must follow. Raises QueueShutDown."""
        while not self._order:
            if self._closed:
                raise QueueShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._order:
                    self._wake()  # the wake-up that this cancelled getter swallowed belongs to another one
                raise
        if self._closed:
            raise QueueShutDown
        key = self._order.popleft()
        self._depth.set(len(self._order))
        now = time.monotonic()
        self._queue_time.observe(now - self._dirty.pop(key))
        self._processing[key] = now
        return key

    def done(self, key: K) -> None:
        """The work on a key from `get` is over; if the key was added meanwhile it waits again."""
        self._work_time.observe(time.monotonic() - self._processing.pop(key))
        if key in self._dirty:
            self._push(key)

    def shut_down(self) -> None:
        """Wake every getter with QueueShutDown, drop delayed keys, ignore further adds."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._waiters:
            self._wake()

    def _fire(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _push(self, key: K) -> None:
        self._order.append(key)
        self._depth.set(len(self._order))
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
