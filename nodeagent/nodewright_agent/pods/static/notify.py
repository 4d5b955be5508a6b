"""A folder's changes with the names of what changed: a file that came back the same had been removed all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nodewright_agent.runtime import inotify

GONE = inotify.DELETE | inotify.MOVED_FROM
_CONTENT = inotify.CREATE | GONE | inotify.MOVED_TO | inotify.CLOSE_WRITE | inotify.MODIFY | inotify.ATTRIB
_MASK = _CONTENT | inotify.DELETE_SELF | inotify.MOVE_SELF


class FolderWatch:
    """Watches one directory at a time, in the running loop."""

    def __init__(self, heard: Callable[[str, int], None]) -> None:
        """Call ``heard(name, mask)`` for each change; the name is empty for the directory itself. Raises OSError."""
        self._heard = heard
        self._watched = -1
        self._inotify = inotify.Inotify(self._event)

    def watch(self, directory: Path) -> None:
        """Watch this directory from now on, and none else. Raises OSError."""
        found = self._inotify.watch(directory, _MASK)
        if self._watched not in (-1, found):
            self._inotify.unwatch(self._watched)
        self._watched = found

    def close(self) -> None:
        """Stop."""
        self._inotify.close()

    def _event(self, watch: int, mask: int, name: str) -> None:
        if watch == self._watched or mask & inotify.OVERFLOW:  # of a former directory nobody wants to hear
            self._heard(name, mask)
