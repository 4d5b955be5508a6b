"""Events of a directory through inotify in the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from nodewright_agent.runtime import syscalls


class DirectoryWatch:
    """Calls ``on_name`` for every file that is renamed into ``directory``, or what else ``mask`` says.

    ``on_overflow`` is called when the kernel dropped events: look at everything then.
    """

    def __init__(
        self,
        directory: Path,
        on_name: Callable[[str], None],
        on_overflow: Callable[[], None],
        mask: int = syscalls.IN_MOVED_TO,
    ) -> None:
        self._on_name, self._on_overflow = on_name, on_overflow
        self._loop = asyncio.get_running_loop()
        self._fd = syscalls.inotify_init()
        try:
            syscalls.inotify_add_watch(self._fd, str(directory), mask | syscalls.IN_ONLYDIR)
        except OSError:
            os.close(self._fd)
            raise
        self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Stop; idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        for mask, name in syscalls.inotify_events(data):
            if mask & syscalls.IN_Q_OVERFLOW:
                self._on_overflow()
            elif name and not name.startswith("."):
                self._on_name(name)


async def appeared(path: Path, act: Callable[[], None], *, timeout: float) -> None:
    """Run ``act`` and wait until ``path`` exists. Raises TimeoutError."""
    seen = asyncio.Event()
    watch = DirectoryWatch(
        path.parent,
        lambda name: seen.set() if name == path.name else None,
        seen.set,
        syscalls.IN_CREATE | syscalls.IN_MOVED_TO,
    )
    try:
        act()
        async with asyncio.timeout(timeout):
            while not path.exists():
                await seen.wait()
                seen.clear()
    finally:
        watch.close()
