"""Memory that was needed for a while, given back to the host: glibc keeps what is freed between other things (15 MB of
an agent after 20 sessions at a time)."""

from __future__ import annotations

import asyncio
import ctypes

QUIET = 10.0
"""Seconds without work."""
_ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h


class Trimmer:
    """Trims the heap once nothing was done for a while; takes some 10 ms."""

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
        if self._trim is not None:
            self._timer = asyncio.get_running_loop().call_later(self._quiet, self._trim, 0)


def share() -> None:
    """Let threads share heaps: ours wait for the kernel, and never for each other's allocations."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
