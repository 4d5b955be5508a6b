"""Rotation of containers' logs, by kubelet's rules (upstream: pkg/kubelet/logs/container_log_manager.go).

A log that has reached its limit is renamed to `<n>.log.<time>`, and the monitor begins a new one; nothing is lost in
between, for the monitor writes to the renamed file until then. Of the rotated ones all but the newest are compressed,
and the oldest go. Who follows a log goes on with the new file.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime.errors import ContainerRuntimeError
from nodewright_agent.runtime.spec import ContainerRecord

log = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between looks (containerLogMonitorInterval)."""
_TIME = "%Y%m%d-%H%M%S"
_COMPRESSED, _TEMPORARY = ".gz", ".tmp"


class LogLimits(NamedTuple):
    """When a log is rotated (bytes), and how many files a container may have, the current one included."""

    max_size: int = 10 << 20
    max_files: int = 5


class Containers(Protocol):
    """What is needed of the runtime."""

    async def list(self) -> Sequence[ContainerRecord]:
        """Every container."""

    async def rotate_log(self, cid: str, to: Path) -> None:
        """Rename a log, and return when there is a new one."""

    async def reopen_log(self, cid: str) -> None:
        """Return when there is a log again where one should be."""


class Upkeep(NamedTuple):
    """What is to be done with the rotated files of one log before the next rotation."""

    remove: list[str]
    compress: list[str]


def upkeep(name: str, siblings: Iterable[str], max_files: int) -> Upkeep:
    """Plan: remove remains of a compression that was broken off, and the oldest; compress the rest. Pure.

    Two files are not counted: the current one, and the one that the next rotation makes.
    """
    rotated = sorted(one for one in siblings if one.startswith(f"{name}."))
    whole = {one.removesuffix(_COMPRESSED) for one in rotated if one.endswith(_COMPRESSED)}
    remove = [one for one in rotated if one.endswith(_TEMPORARY) or one in whole]
    kept = [one for one in rotated if one not in remove]
    excess = max(0, len(kept) - max(0, max_files - 2))
    remove += kept[:excess]
    return Upkeep(remove, [one for one in kept[excess:] if not one.endswith(_COMPRESSED)])


class LogRotator:
    """Looks at the logs of running containers, and rotates those that are too long."""

    def __init__(
        self,
        containers: Containers,
        limits: LogLimits,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        interval: float = INTERVAL,
    ) -> None:
        """Nothing is looked at before `run`."""
        self.limits = limits
        self._containers, self._now, self._interval = containers, now, interval
        self._wake = asyncio.Event()

    def change(self, limits: LogLimits) -> None:
        """Take over other limits; they hold from the next look on, which is at once."""
        if limits != self.limits:
            self.limits = limits
            self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            try:
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def look(self) -> None:
        """Look once at every running container. A log that cannot be rotated does not keep others from it."""
        for record in await self._containers.list():
            if not record.running:
                continue
            try:
                await self._look_at(record)
            except (OSError, ContainerRuntimeError) as error:
                log.warning("log is not rotated: %s", error, extra={"container": record.id})

    async def _look_at(self, record: ContainerRecord) -> None:
        path = Path(record.spec.log_path)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            # An agent was killed between renaming it and telling the monitor, who still writes to the renamed one.
            if any(path.parent.glob(f"{path.name}.*")):
                await self._containers.reopen_log(record.id)
            return
        # What a Pod with a writable hostPath may have put here is none of ours.
        if not stat.S_ISREG(status.st_mode) or status.st_size < self.limits.max_size:
            return
        target = path.with_name(f"{path.name}.{self._now().strftime(_TIME)}")
        if target.exists() or target.with_name(target.name + _COMPRESSED).exists():
            return  # twice in one second: the next look will do
        await asyncio.to_thread(_tidy, path, self.limits.max_files)
        try:
            await self._containers.rotate_log(record.id, target)
        except BaseException:
            # The monitor still writes to it: under its old name it will be found, and rotated later.
            if not os.path.lexists(path) and os.path.lexists(target):
                target.rename(path)
            raise
        log.info("log rotated", extra={"container": record.id, "to": target.name, "bytes": status.st_size})


def _tidy(path: Path, max_files: int) -> None:
    """Carry out the plan. Every name is taken from the directory's descriptor, and no link is followed."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        plan = upkeep(path.name, os.listdir(directory), max_files)
        for name in plan.remove:
            os.unlink(name, dir_fd=directory)
        for name in plan.compress:
            _compress(directory, name)
    finally:
        os.close(directory)


def _compress(directory: int, name: str) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with open(source, "rb") as plain:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise OSError(f"{name!r} in the log directory is no regular file with a single name")
        temporary = f"{name}{_TEMPORARY}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(temporary, flags, stat.S_IMODE(status.st_mode), dir_fd=directory)
        with open(target, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
    failpoint("log.packed")
    os.rename(temporary, f"{name}{_COMPRESSED}", src_dir_fd=directory, dst_dir_fd=directory)
    failpoint("log.compressed")
    os.unlink(name, dir_fd=directory)
