"""Has the kernel tell when it lacks memory: a trigger on its pressure stall information (PSI)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Self

TRIGGER = b"some 200000 2000000\0"
"""Some process has waited for memory for 200 ms within 2 s: the kernel grants such windows without privileges, too."""
QUIET = 1.0
"""Seconds for which further signals are not listened to, while a look is under way anyway."""


class MemoryEvents:
    """Calls back while the kernel has to search for memory. False where it cannot tell (no PSI, not permitted)."""

    def __init__(self, tell: Callable[[], None], path: Path = Path("/proc/pressure/memory")) -> None:
        """``tell`` is called in the loop."""
        self._tell, self._path = tell, path
        self._trigger = -1
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._poll: select.epoll | None = None

    def __enter__(self) -> Self:
        """Begin to listen."""
        try:
            self._trigger = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._trigger, TRIGGER)
            self._poll = select.epoll()
            self._poll.register(self._trigger, select.EPOLLPRI | select.EPOLLET)
        except OSError:
            self._close()
        else:
            self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._close()

    def __bool__(self) -> bool:
        """Whether the kernel tells."""
        return self._poll is not None

    def _listen(self) -> None:
        if self._poll is not None:
            self._loop.add_reader(self._poll.fileno(), self._ready)

    def _ready(self) -> None:
        assert self._poll is not None
        with contextlib.suppress(OSError):
            self._poll.poll(0)
        self._loop.remove_reader(self._poll.fileno())
        self._again = self._loop.call_later(QUIET, self._listen)
        self._tell()

    def _close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._poll is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None
        if self._trigger >= 0:
            os.close(self._trigger)
            self._trigger = -1
