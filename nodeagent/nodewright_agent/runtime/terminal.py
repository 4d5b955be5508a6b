"""The size of a container's terminal, as its user's changes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from nodewright_agent.runtime import conmon
from nodewright_agent.runtime.streams import SizeSource


class Resizing:
    """Brings a terminal to its user's size; the newest one counts."""

    def __init__(self, source: SizeSource) -> None:
        """Read sizes from ``source`` while ``run`` runs."""
        self._source = source
        self._directory: Path | None = None
        self.latest: tuple[int, int] | None = None
        """Width and height."""

    async def run(self) -> None:
        """Follow the sizes to their end."""
        while (size := await self._source.next()) is not None:
            self.latest = size
            self._apply()

    def follow(self, directory: Path) -> None:
        """From now on it is the terminal of the monitor with this bundle."""
        self._directory = directory
        self._apply()

    def _apply(self) -> None:
        if self._directory is not None and self.latest is not None:
            # It has ended: there is no terminal any more.
            with contextlib.suppress(OSError):
                conmon.resize(self._directory, *self.latest)
