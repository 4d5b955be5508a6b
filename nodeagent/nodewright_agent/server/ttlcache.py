"""A small cache of decisions: bounded, with a time to live per entry, and one look-up for many who wait."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class TtlCache(Generic[V]):
    """Remembers results of an asynchronous look-up. Failures are never remembered."""

    def __init__(
        self, ttl: Callable[[V], float], *, size: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ttl` gives the seconds that a result stays good; the least recently used entry goes when it is full."""
        self._ttl = ttl
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()
        self._pending: dict[Hashable, asyncio.Task[V]] = {}

    async def get(self, key: Hashable, look_up: Callable[[], Awaitable[V]]) -> V:
        """Give the remembered result, or look it up; whoever asks meanwhile shares that look-up."""
        entry = self._entries.get(key)
        if entry is not None:
            if self._clock() < entry[0]:
                self._entries.move_to_end(key)
                return entry[1]
            del self._entries[key]
        task = self._pending.get(key)
        if task is None:
            # a task of its own: the client that asked first may go away while others wait
            task = self._pending[key] = asyncio.ensure_future(self._fill(key, look_up))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def _fill(self, key: Hashable, look_up: Callable[[], Awaitable[V]]) -> V:
        result = await look_up()
        self._entries[key] = (self._clock() + self._ttl(result), result)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return result

    def _forget(self, key: Hashable, task: asyncio.Task[V]) -> None:
        self._pending.pop(key, None)
        if not task.cancelled():
            task.exception()  # taken by those who waited; if none is left, it must not be reported as lost
