"""Who wants to know of containers' starts and ends (GetContainerEvents)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

_MOST = 1000
"""Events that wait for one listener; one that takes none is dropped, as it would miss some anyway."""


class Events:
    """Passes each event to every listener of the moment."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._queues: set[asyncio.Queue[Any]] = set()

    def post(self, event: Any) -> None:
        """Tell all listeners (None: there will be no more)."""
        for queue in list(self._queues):
            full = queue.qsize() >= _MOST
            if full:
                self._queues.discard(queue)
            queue.put_nowait(None if full else event)

    def follow(self) -> AsyncIterator[Any]:
        """Events from this call on, until the server stops."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._queues.add(queue)
        return self._from(queue)

    async def _from(self, queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)
