"""How much disk a directory tree uses: counted in a thread, with care for the rest of the agent, and remembered.

What is counted is written by Pods: links are not followed, other file systems are left out, a file with several names
counts once, and a tree that is made to be endless costs a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

FRESH, OLDEST = 10.0, 60.0
"""A count is good for at least, and at most, so many seconds (upstream counts once a minute)."""
FORGOTTEN = 10 * OLDEST
"""Seconds after which a count that nobody took again is dropped."""
SHARE = 0.01
"""Of a processor's time, at most, for counting one tree again and again."""
LONGEST = 60.0
"""Seconds for one tree; a larger one stays without a count."""
PATIENCE = 5.0
"""Seconds that a caller waits; what is not counted by then is left out, and there for the next one."""
DEEPEST = 200
_PAUSE_EVERY, _PAUSE = 500, 0.001
_BLOCK = 512


class Count(NamedTuple):
    """Bytes on disk and inodes of a tree; when it was counted (seconds since the epoch), and how long that took."""

    size: int
    inodes: int
    at: float
    took: float = 0.0


class TooLarge(Exception):
    """The tree could not be counted in the time that there is."""


def measure(root: Path, limit: float = LONGEST) -> tuple[int, int]:
    """Return bytes on disk and inodes of a tree; what is not there uses nothing. Blocks. Raises ``TooLarge``.

    Directories are opened by name within their parent, so that no path can become too long, and nothing that is
    replaced meanwhile leads elsewhere.
    """
    deadline = time.monotonic() + limit
    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0, 0
    walk = _Walk(deadline)
    walk.deeper.append(top)
    try:
        while walk.deeper:
            fd = walk.deeper.pop()
            try:
                walk.directory(fd, 0)
            finally:
                os.close(fd)
    finally:
        for fd in walk.deeper:
            os.close(fd)
    return walk.size, walk.inodes


class _Walk:
    """One count as it grows."""

    def __init__(self, deadline: float) -> None:
        self.size = self.inodes = 0
        self._deadline, self._seen, self._entries = deadline, set[tuple[int, int]](), 0
        self._device: int | None = None
        self.deeper: list[int] = []
        """Directories too deep to go on from where they are."""

    def directory(self, fd: int, depth: int) -> None:
        """Count a directory and what is in it."""
        status = os.fstat(fd)
        self._device = status.st_dev if self._device is None else self._device
        self._add(status)
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if self._count(entry)]
        for name in names:
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except OSError:
                continue  # removed or replaced meanwhile
            try:
                if os.fstat(inner).st_dev != self._device:
                    continue
                if depth < DEEPEST:
                    self.directory(inner, depth + 1)
                elif len(self.deeper) < DEEPEST:
                    self.deeper.append(os.dup(inner))
                else:
                    raise TooLarge(f"too many directories are deeper than {DEEPEST}")
            finally:
                os.close(inner)

    def _count(self, entry: os.DirEntry[str]) -> bool:
        """Count a file; tell of a directory, which is counted when it is entered."""
        self._entries += 1
        if self._entries % _PAUSE_EVERY == 0:
            time.sleep(_PAUSE)  # let the loop have the interpreter
            if time.monotonic() > self._deadline:
                raise TooLarge("it has too many files")
        try:
            if entry.is_dir(follow_symlinks=False):
                return True
            self._add(entry.stat(follow_symlinks=False))
        except OSError:
            pass  # removed meanwhile
        return False

    def _add(self, status: os.stat_result) -> None:
        if status.st_dev != self._device:
            return
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in self._seen:
                return
            self._seen.add((status.st_dev, status.st_ino))
        self.size += status.st_blocks * _BLOCK
        self.inodes += 1


class DiskCounter:
    """Counts of trees, each at most as old as it has to be. Used in the loop."""

    def __init__(self, clock: Callable[[], float], measure: Callable[[Path], tuple[int, int]] = measure) -> None:
        """Know nothing yet."""
        self._clock, self._measure = clock, measure
        self._counts: dict[Path, Count] = {}
        self._failed: dict[Path, float] = {}
        self._running: asyncio.Task[None] | None = None
        self._wanted: dict[Path, None] = {}

    async def counts(self, paths: Iterable[Path], *, fresh: float = OLDEST) -> dict[Path, Count]:
        """Return the counts that are known once those older than ``fresh`` seconds were taken again."""
        asked = list(paths)
        now = self._clock()
        stale = [path for path in asked if self._stale(path, fresh, now)]
        if stale:
            self._counts = {path: count for path, count in self._counts.items() if now - count.at < FORGOTTEN}
            self._failed = {path: at for path, at in self._failed.items() if now - at < FORGOTTEN}
            self._wanted.update(dict.fromkeys(stale))
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._work(), name="disk usage")
            await asyncio.wait([self._running], timeout=PATIENCE)
        return {path: self._counts[path] for path in asked if path in self._counts}

    async def close(self) -> None:
        """End counting; waits for the tree at hand."""
        self._wanted.clear()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    def _stale(self, path: Path, fresh: float, now: float) -> bool:
        if now - self._failed.get(path, now - OLDEST) < OLDEST:
            return False
        count = self._counts.get(path)
        if count is None:
            return True
        good = min(max(fresh, count.took / SHARE), OLDEST)
        return not 0 <= now - count.at < good

    async def _work(self) -> None:
        while self._wanted:
            path = next(iter(self._wanted))
            del self._wanted[path]
            begun = time.monotonic()
            try:
                size, inodes = await asyncio.to_thread(self._measure, path)
            except (TooLarge, OSError) as error:
                self._counts.pop(path, None)
                self._failed[path] = self._clock()
                log.warning("disk usage of %s is not known: %s", path, error)
            else:
                self._failed.pop(path, None)
                self._counts[path] = Count(size, inodes, self._clock(), time.monotonic() - begun)
