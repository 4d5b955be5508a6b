"""Work that several callers wait for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """A task with a count of who waits for it.

    A caller that is cancelled leaves the others alone; the last one to leave cancels the work and waits until it has
    cleaned up.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.task: asyncio.Task[T] = asyncio.create_task(work)
        self._waiting = 0

    async def join(self) -> T:
        """Wait for the result."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self._waiting == 1 and not self.task.done():
                self.task.cancel()
                await asyncio.gather(self.task, return_exceptions=True)
            raise
        finally:
            self._waiting -= 1
