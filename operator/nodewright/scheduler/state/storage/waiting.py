"""Waiting for the cluster to change, without looking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Waiters:
    """Coroutines that wait for a change of one of several things, each named by a kind and a key."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], set[asyncio.Future[None]]] = {}

    async def wait(self, things: Iterable[tuple[str, str]]) -> None:
        """Wait until one of the things is woken. What happened before the call does not count."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        registered = set(things)
        for thing in registered:
            self._waiting.setdefault(thing, set()).add(future)
        try:
            await future
        finally:
            for thing in registered:
                waiting = self._waiting[thing]
                waiting.discard(future)
                if not waiting:
                    del self._waiting[thing]

    def wake(self, kind: str, key: str) -> None:
        """The thing has changed."""
        for future in self._waiting.get((kind, key), ()):
            if not future.done():
                future.set_result(None)
