"""Memory that sessions needed, given back to the host: glibc keeps what is freed between other things (15 MB of an
agent after 20 sessions at a time)."""

from __future__ import annotations

import asyncio
import ctypes

QUIET = 10.0
"""Seconds without a session."""


class Trimmer:
    """Trims the heap once there has been no session for a while; takes some 10 ms."""

    def __init__(self, quiet: float = QUIET) -> None:
        self._quiet = quiet
        self._timer: asyncio.TimerHandle | None = None
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and need none

    def busy(self) -> None:
        """There is a session."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def idle(self) -> None:
        """There is none any more."""
        self.busy()
        if self._trim is not None:
            self._timer = asyncio.get_running_loop().call_later(self._quiet, self._trim, 0)
