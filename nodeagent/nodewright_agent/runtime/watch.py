"""Files that appear in a directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from nodewright_agent.runtime import inotify


class DirectoryWatch:
    """Calls ``on_name`` for every file that is renamed into ``directory``, or what else ``mask`` says.

    ``on_overflow`` is called when the kernel dropped events: look at everything then.
    """

    def __init__(
        self,
        directory: Path,
        on_name: Callable[[str], None],
        on_overflow: Callable[[], None],
        mask: int = inotify.MOVED_TO,
    ) -> None:
        self._on_name, self._on_overflow = on_name, on_overflow
        self._inotify = inotify.Inotify(self._event)
        try:
            self._inotify.watch(directory, mask | inotify.ONLY_DIRECTORY)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Stop; idempotent."""
        self._inotify.close()

    def _event(self, _watch: int, mask: int, name: str) -> None:
        if mask & inotify.OVERFLOW:
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
        inotify.CREATE | inotify.MOVED_TO,
    )
    try:
        act()
        async with asyncio.timeout(timeout):
            while not path.exists():
                await seen.wait()
                seen.clear()
    finally:
        watch.close()
