"""The size of a container's terminal, as its user's changes."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from nodewright_agent.runtime import conmon
from nodewright_agent.runtime.streams import SizeSource
from nodewright_agent.runtime.tasks import tasks


class Resizing:
    """Brings a terminal to its user's size; the newest one counts."""

    def __init__(self, source: SizeSource) -> None:
        """Read sizes from ``source`` while ``run`` runs."""
        self._source = source
        self._directory: Path | None = None
        self._news = asyncio.Event()
        self.latest: tuple[int, int] | None = None
        """Width and height."""

    async def run(self) -> None:
        """Follow the sizes; it goes on after the last, which may yet have to be set."""
        async with tasks() as start:
            setting = start(self._set())
            while (size := await self._source.next()) is not None:
                self.latest = size
                self._news.set()
            await setting

    def follow(self, directory: Path) -> None:
        """From now on it is the terminal of the monitor with this bundle."""
        self._directory = directory
        self._news.set()

    async def _set(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._directory is not None and self.latest is not None:
                # It has ended: there is no terminal any more.
                with contextlib.suppress(OSError):
                    await conmon.resize(self._directory, *self.latest)
