"""Cgroups of pods and monitors: one interface over v1 (also hybrid) and v2.

Only paths below the given root are written, but for the controllers that v2 wants enabled in each ancestor.
"""

from __future__ import annotations

import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import msgspec

from nodewright_agent.runtime import mountinfo, processes
from nodewright_agent.runtime.errors import RuntimeUnavailable


class CgroupLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a cgroup may use; None leaves a value as it is.

    ``cpu_shares`` 2..262144; ``cpu_quota`` in microseconds per ``cpu_period``; ``memory`` in bytes; ``pids`` a count;
    ``hugepages`` bytes by page size as the kernel spells it (``2MB``). -1: no limit.
    """

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    memory: int | None = None
    pids: int | None = None
    hugepages: dict[str, int] | None = None


class CgroupStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one cgroup and all below it. CPU in nanoseconds, memory in bytes."""

    cpu_usage_ns: int
    memory_usage: int
    memory_working_set: int
    """Usage less the inactive page cache, as cAdvisor and the eviction manager count it."""
    memory_rss: int
    memory_limit: int | None
    pids: int
    page_faults: int
    major_page_faults: int


class Cgroups(ABC):
    """Access to the host's cgroup hierarchies. Paths are absolute below each of them: ``/nodewright/c/n/kubepods``."""

    version: int

    @abstractmethod
    def hierarchies(self) -> Iterator[Path]:
        """The mount points in which a path of ours may exist."""

    @abstractmethod
    def create(self, path: str, limits: CgroupLimits | None = None) -> None:
        """Make the cgroup and its ancestors in every hierarchy and set limits; idempotent."""

    @abstractmethod
    def update(self, path: str, limits: CgroupLimits) -> None:
        """Write the limits that are not None. Raises OSError (EBUSY: memory limit below what is in use)."""

    @abstractmethod
    def limits(self, path: str) -> CgroupLimits:
        """Read what the cgroup may use now, -1 for "no limit". Raises FileNotFoundError when it is gone."""

    @abstractmethod
    def hugepage_sizes(self, path: str) -> list[str]:
        """The page sizes that an existing cgroup other than the root can limit; none without the controller."""

    @abstractmethod
    def stats(self, path: str) -> CgroupStats:
        """Read the counters. Raises FileNotFoundError when the cgroup is gone."""

    @abstractmethod
    def oom_kills(self, path: str) -> int:
        """How many processes of this very cgroup the kernel killed for memory; 0 when it is gone."""

    @abstractmethod
    def limits_swap(self, path: str) -> bool:
        """Whether the kernel accounts swap, seen in an existing cgroup other than the root."""

    @abstractmethod
    def enter(self, path: str, pid: int, *, everywhere: bool = False) -> None:
        """Move a process into the cgroup, in every hierarchy that accounts for it; ``everywhere``: in all there are.

        What stays behind in any hierarchy of a container's cgroup is killed with the container: runc kills a container
        without a pid namespace of its own by its devices cgroup, kubelet what it finds in any.
        """

    def warm(self) -> None:
        """Make the moves of the next some 10 ms cheap. Blocks for about as long: call it in a thread, ahead of time.

        The first move of a process between cgroups waits for an RCU grace period, those that follow soon do not
        (cgroup_threadgroup_rwsem). Moving ourselves to where we are is a move, and changes nothing.
        """
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mount = self.mount_of(controllers)
            if mount is not None:
                write(_at(mount, path) / "cgroup.procs", str(os.getpid()))
                return

    @abstractmethod
    def mount_of(self, controllers: str) -> Path | None:
        """The mount of a /proc/PID/cgroup line's hierarchy (``cpu,cpuacct``; empty for v2), if we use it."""

    def exists(self, path: str) -> bool:
        """Whether any hierarchy has the cgroup."""
        return any(_at(mount, path).is_dir() for mount in self.hierarchies())

    def pids(self, path: str) -> set[int]:
        """Processes in the cgroup and below it, in any hierarchy."""
        found: set[int] = set()
        for mount in self.hierarchies():
            for directory in _bottom_up(_at(mount, path)):
                found.update(_numbers(directory / "cgroup.procs"))
        return found

    def children(self, path: str) -> set[str]:
        """Names of the direct child cgroups, in any hierarchy."""
        names: set[str] = set()
        for mount in self.hierarchies():
            try:
                names.update(
                    entry.name for entry in os.scandir(_at(mount, path)) if entry.is_dir(follow_symlinks=False)
                )
            except FileNotFoundError:
                continue
        return names

    def kill(self, path: str, timeout: float = 10.0) -> None:
        """SIGKILL everything in the cgroup and below, and wait until it is gone.

        Raises TimeoutError with the pids that would not die (uninterruptible sleep).
        """
        deadline = time.monotonic() + timeout
        while pids := self.pids(path) - {os.getpid()}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"cgroup {path}: processes do not end: {sorted(pids)}")
            for pid in pids:
                processes.kill(pid)
            processes.wait_gone(pids, deadline)

    def remove(self, path: str, timeout: float = 10.0) -> None:
        """Remove the cgroup and all below it from every hierarchy, leaves first. What is gone is fine; idempotent.

        Waits shortly where the kernel still accounts a process that has just ended. Raises OSError(EBUSY)
        when something lives in it.
        """
        if path.strip("/") == "":
            raise ValueError("refusing to remove the root cgroup")
        deadline = time.monotonic() + timeout
        for mount in self.hierarchies():
            for directory in _bottom_up(_at(mount, path)):
                _rmdir(directory, deadline)

    def remove_empty_parents(self, path: str, stop: str) -> None:
        """Remove ``path`` and its ancestors up to, but not including, ``stop`` where they are empty."""
        stop = stop.rstrip("/")
        while path.rstrip("/") != stop and path.startswith(f"{stop}/"):
            for mount in self.hierarchies():
                try:
                    os.rmdir(_at(mount, path))
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                        raise
            path = path.rpartition("/")[0]


def detect(entries: list[mountinfo.MountEntry] | None = None) -> Cgroups:
    """Find the host's cgroup layout. Raises RuntimeUnavailable when there is none that we can use."""
    from nodewright_agent.runtime.cgroups_v1 import CgroupsV1
    from nodewright_agent.runtime.cgroups_v2 import CgroupsV2

    v1: dict[str, Path] = {}
    unified: Path | None = None
    partial: list[str] = []
    for entry in mountinfo.read() if entries is None else entries:
        if entry.fstype in ("cgroup", "cgroup2") and entry.root != "/":
            partial.append(entry.mount_point)  # a container's own view: only its own cgroup
            continue
        if entry.fstype == "cgroup2":
            unified = unified or Path(entry.mount_point)
        elif entry.fstype == "cgroup":
            for option in entry.super_options.split(","):
                if option not in ("rw", "ro", "xattr", "noprefix", "clone_children"):
                    v1.setdefault(option, Path(entry.mount_point))
    if any(not name.startswith("name=") for name in v1):
        missing = {"cpu", "memory", "pids", "devices"} - v1.keys()
        if missing:
            raise RuntimeUnavailable(
                f"cgroup v1: controllers not mounted: {', '.join(sorted(missing))}{_hint(partial)}"
            )
        return CgroupsV1(v1, unified)
    if unified is None:
        raise RuntimeUnavailable(f"no cgroup file system is mounted (expected /sys/fs/cgroup){_hint(partial)}")
    return CgroupsV2(unified)


def _hint(partial: list[str]) -> str:
    if not partial:
        return ""
    return f"; {partial[0]} shows one cgroup only: mount the host's /sys/fs/cgroup into the agent's container"


def write(path: Path, value: str) -> None:
    """Write one cgroup file with one write(2), so that the kernel's error is ours and not lost in a buffer."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_number(path: Path) -> int | None:
    """A file with one number; None for ``max``."""
    text = path.read_text().strip()
    return None if text == "max" else int(text)


def read_table(path: Path) -> dict[str, int]:
    """A file of ``key number`` lines."""
    return {key: int(value) for key, _, value in (line.partition(" ") for line in path.read_text().splitlines())}


def page_sizes(directory: Path, suffix: str) -> list[str]:
    """The sizes of the files ``hugetlb.SIZE.SUFFIX`` in a cgroup; those of reservations (``.rsvd.``) do not count."""
    found = (path.name.split(".") for path in directory.glob(f"hugetlb.*.{suffix}"))
    return sorted(words[1] for words in found if len(words) == 3)


def ancestors(path: str) -> list[str]:
    """``/a``, ``/a/b``, ... up to the path itself. Raises ValueError for a path with ``..`` or that is not absolute."""
    parts = path.split("/")
    if not path.startswith("/") or ".." in parts:
        raise ValueError(f"cgroup path {path!r}: expected an absolute path without ..")
    names = [part for part in parts if part]
    return ["/" + "/".join(names[: count + 1]) for count in range(len(names))]


def _at(mount: Path, path: str) -> Path:
    return mount / path.lstrip("/")


def _numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_bytes().split()]
    except OSError as error:
        # ENODEV: removed while we read; EOPNOTSUPP: a threaded cgroup, whose domain root lists the processes.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise


def _bottom_up(directory: Path) -> Iterator[Path]:
    for current, _, _ in os.walk(directory, topdown=False):
        yield Path(current)


def _rmdir(directory: Path, deadline: float) -> None:
    pause = 0.001
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            # The kernel lets a dead process go a moment after its pidfd says so; there is no event for that in v1.
            if error.errno != errno.EBUSY or time.monotonic() > deadline or _numbers(directory / "cgroup.procs"):
                raise
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return
