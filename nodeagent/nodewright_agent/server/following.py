"""Directory changes as asyncio events, for all who follow logs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from nodewright_agent.runtime import inotify

_CONTENT = inotify.MODIFY | inotify.MOVED_TO | inotify.CREATE | inotify.DELETE
_MASK = _CONTENT | inotify.DELETE_SELF | inotify.ONLY_DIRECTORY


class DirectoryWatcher:
    """Wakes those who wait for a change in a directory. Opened by its first watch; `close()` when done."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._inotify: inotify.Inotify | None = None
        self._waiting: dict[int, set[asyncio.Event]] = {}

    @contextmanager
    def watch(self, directory_fd: int) -> Iterator[asyncio.Event]:
        """Give an event that is set at every change in the directory; clear it before looking. Raises OSError.

        The directory is named by descriptor, so that no path is followed twice.
        """
        if self._inotify is None:
            self._inotify = inotify.Inotify(self._changed)
        instance = self._inotify
        number = instance.watch(f"/proc/self/fd/{directory_fd}", _MASK)
        event = asyncio.Event()
        self._waiting.setdefault(number, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting.get(number, set())
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(number, None)
                instance.unwatch(number)

    def close(self) -> None:
        """Close the instance and wake everybody, so that nobody waits for what can't come."""
        if self._inotify is None:
            return
        self._inotify.close()
        self._inotify = None
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()

    def _changed(self, number: int, mask: int, _name: str) -> None:
        lost = mask & inotify.OVERFLOW
        for event in set().union(*self._waiting.values()) if lost else self._waiting.get(number, ()):
            event.set()
