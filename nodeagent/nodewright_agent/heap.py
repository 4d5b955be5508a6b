"""Memory that was needed for a while, given back to the host: glibc keeps what is freed between other things (15 MB of
an agent after 20 sessions at a time)."""

from __future__ import annotations

import asyncio
import ctypes
import gc

QUIET = 20.0
"""Seconds without work; idle connections to the API server are closed after 15."""
_ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h


class Trimmer:
    """Collects garbage and trims the heap once nothing was done for a while; takes some 10 ms after ``settle``."""

    def __init__(self, quiet: float = QUIET) -> None:
        self._quiet = quiet
        self._timer: asyncio.TimerHandle | None = None
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and need none

    def busy(self) -> None:
        """Something is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def idle(self) -> None:
        """It is over; for all that anybody knows, more will come at once."""
        self.busy()
        self._timer = asyncio.get_running_loop().call_later(self._quiet, self._clean)

    def _clean(self) -> None:
        self._timer = None
        gc.collect()  # what a burst left in cycles would wait for the next one
        if self._trim is not None:
            self._trim(0)


def settle() -> None:
    """What there is now stays: no garbage collection has to look at it again."""
    gc.collect()
    gc.freeze()


def share() -> None:
    """Let threads share heaps: ours wait for the kernel, and never for each other's allocations."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
