"""Processor time per second, from two readings: nothing is read between requests, so that idle costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from nodewright_agent.usage.model import NodeUsage, Usage

SHORTEST, LONGEST = 1.0, 120.0
"""Seconds between the two readings that a rate is made of."""
PAUSE = 0.5
"""Seconds to wait for a second reading where the last one is too old, or missing."""


class Rates:
    """Remembers the last reading of each cgroup."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._last: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, int] = {}

    async def fill(
        self, usage: NodeUsage, again: Callable[[], Awaitable[dict[str, int]]], clock: Callable[[], float]
    ) -> None:
        """Set ``cpu_nanocores`` everywhere; reads ``again`` after a moment where there is no earlier reading."""
        now = clock()
        self._note({name: one.cpu_nanoseconds or 0 for name, one in parts(usage)}, now)
        if any(name not in self._rates for name, _ in parts(usage)):
            await asyncio.sleep(PAUSE)
            self._note(await again(), clock(), shortest=0.0)
        for name, one in parts(usage):
            one.cpu_nanocores = self._rates.get(name)
        known = {name for name, _ in parts(usage)}
        for name in self._last.keys() - known:
            self._last.pop(name)
            self._rates.pop(name, None)

    def _note(self, values: dict[str, int], now: float, shortest: float = SHORTEST) -> None:
        for name, value in values.items():
            at, before = self._last.get(name, (0.0, -1))
            gone = now - at
            if before < 0 or gone > LONGEST or value < before:
                self._rates.pop(name, None)
            elif gone <= shortest or gone <= 0:
                continue  # too short to tell: the rate of before stays
            else:
                self._rates[name] = int((value - before) / gone)
            self._last[name] = (now, value)


def parts(usage: NodeUsage) -> Iterator[tuple[str, Usage]]:
    """Everything that has a processor time, by a name of its own."""
    yield "", usage.usage
    for one in usage.system:
        yield f"system {one.name}", one.usage
    for pod in usage.pods:
        yield pod.cgroup, pod.usage
        for container in pod.containers:
            yield container.cgroup, container.usage
