"""How many images are pulled at a time, and how fast pulls may begin: kubelet's serializeImagePulls and its kin."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable


class Rate:
    """A token bucket: `burst` at once, then `qps` a second; 0: no limit."""

    def __init__(self, qps: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Full at first."""
        self._qps, self._burst, self._clock = qps, burst, clock
        self._next = 0.0

    def delay(self) -> float:
        """Take a token; seconds until it may be used."""
        if self._qps <= 0:
            return 0.0
        now = self._clock()
        self._next = max(self._next, now)
        wait = self._next - now - (self._burst - 1) / self._qps
        self._next += 1 / self._qps
        return max(0.0, wait)


class Gate:
    """Pulls pass it one after another. A pull over the limit waits; with kubelet it fails (`pull QPS exceeded`)."""

    def __init__(self, parallel: int = 0, rate: Rate | None = None) -> None:
        """`parallel` 0: any number at a time."""
        self._slots = asyncio.Semaphore(parallel) if parallel else None
        self._rate = rate or Rate(0, 0)

    @contextlib.asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Wait for the turn; others follow in the order of their coming."""
        async with self._slots or contextlib.nullcontext():
            wait = self._rate.delay()
            if wait:
                await asyncio.sleep(wait)
            yield
