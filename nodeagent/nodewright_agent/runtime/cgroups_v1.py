"""cgroup v1, pure or hybrid: the same path in every controller, in name=systemd and in the unified hierarchy."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

from nodewright_agent.runtime.cgroups import (
    CgroupLimits,
    Cgroups,
    CgroupStats,
    ancestors,
    page_sizes,
    read_number,
    read_table,
    write,
)

_UNLIMITED = 1 << 60
"""memory.limit_in_bytes shows a page-rounded 2^63 for "no limit"."""
_MEMORY_AND_SWAP = "memory.memsw.limit_in_bytes"
_PLACED = ("cpu", "cpuacct", "memory", "pids")
"""Controllers that a monitor is moved into: those that account for what it uses."""


class CgroupsV1(Cgroups):
    """Controllers by name (``cpu``, ``name=systemd``) and their mount points; combined mounts appear twice."""

    version = 1

    def __init__(self, controllers: Mapping[str, Path], unified: Path | None) -> None:
        self.controllers = dict(controllers)
        self.unified = unified

    def hierarchies(self) -> Iterator[Path]:
        """Each mount once: ``cpu`` and ``cpuacct`` are often one."""
        mounts = dict.fromkeys(self.controllers.values())
        if self.unified is not None:
            mounts.setdefault(self.unified)
        return iter(mounts)

    def mount_of(self, controllers: str) -> Path | None:
        """See ``Cgroups.mount_of``."""
        return self.controllers.get(controllers.split(",")[0])

    def create(self, path: str, limits: CgroupLimits | None = None) -> None:
        """See ``Cgroups.create``. cpuset is copied down level by level: no process may enter an empty one."""
        for mount in self.hierarchies():
            (mount / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        if (cpuset := self.controllers.get("cpuset")) is not None:
            parent = cpuset
            for level in ancestors(path):
                here = cpuset / level.lstrip("/")
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if not (here / name).read_text().strip():
                        write(here / name, (parent / name).read_text().strip())
                parent = here
        if limits is not None:
            self.update(path, limits)

    def update(self, path: str, limits: CgroupLimits) -> None:
        """See ``Cgroups.update``. A quota is written after its period, as the kernel checks their ratio."""
        cpu = self._in("cpu", path)
        if limits.cpu_shares is not None:
            write(cpu / "cpu.shares", str(limits.cpu_shares))
        if limits.cpu_period is not None:
            write(cpu / "cpu.cfs_period_us", str(limits.cpu_period))
        if limits.cpu_quota is not None:
            write(cpu / "cpu.cfs_quota_us", str(limits.cpu_quota))
        if limits.memory is not None:
            self._set_memory(self._in("memory", path), limits.memory)
        if limits.pids is not None:
            write(self._in("pids", path) / "pids.max", "max" if limits.pids < 0 else str(limits.pids))
        for size, amount in (limits.hugepages or {}).items():
            write(self._in("hugetlb", path) / f"hugetlb.{size}.limit_in_bytes", str(amount))

    def limits(self, path: str) -> CgroupLimits:
        """See ``Cgroups.limits``."""
        cpu = self._in("cpu", path)
        memory = read_number(self._in("memory", path) / "memory.limit_in_bytes") or 0
        pids = read_number(self._in("pids", path) / "pids.max")
        return CgroupLimits(
            cpu_shares=read_number(cpu / "cpu.shares"),
            cpu_quota=read_number(cpu / "cpu.cfs_quota_us"),
            cpu_period=read_number(cpu / "cpu.cfs_period_us"),
            memory=-1 if memory >= _UNLIMITED else memory,
            pids=-1 if pids is None else pids,
        )

    def hugepage_sizes(self, path: str) -> list[str]:
        """See ``Cgroups.hugepage_sizes``."""
        if "hugetlb" not in self.controllers:
            return []
        return page_sizes(self._in("hugetlb", path), "limit_in_bytes")

    def stats(self, path: str) -> CgroupStats:
        """See ``Cgroups.stats``."""
        memory = self._in("memory", path)
        table = read_table(memory / "memory.stat")
        usage = read_number(memory / "memory.usage_in_bytes") or 0
        limit = read_number(memory / "memory.limit_in_bytes") or 0
        return CgroupStats(
            cpu_usage_ns=read_number(self._in("cpuacct", path) / "cpuacct.usage") or 0,
            memory_usage=usage,
            memory_working_set=max(0, usage - table.get("total_inactive_file", 0)),
            memory_rss=table.get("total_rss", 0),
            memory_limit=None if limit >= _UNLIMITED else limit,
            pids=read_number(self._in("pids", path) / "pids.current") or 0,
            page_faults=table.get("total_pgfault", 0),
            major_page_faults=table.get("total_pgmajfault", 0),
        )

    def oom_kills(self, path: str) -> int:
        """See ``Cgroups.oom_kills``: the victim's own cgroup counts, also when an ancestor's limit was exceeded."""
        try:
            return read_table(self._in("memory", path) / "memory.oom_control").get("oom_kill", 0)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return 0
            raise

    def limits_swap(self, path: str) -> bool:
        """See ``Cgroups.limits_swap``."""
        return (self._in("memory", path) / _MEMORY_AND_SWAP).exists()

    def enter(self, path: str, pid: int, *, everywhere: bool = False) -> None:
        """See ``Cgroups.enter``; by default only the controllers that account, since each further move costs."""
        accounting = dict.fromkeys(self.controllers[name] for name in _PLACED if name in self.controllers)
        for mount in self.hierarchies() if everywhere else accounting:
            write(mount / path.lstrip("/") / "cgroup.procs", str(pid))

    @staticmethod
    def _set_memory(here: Path, memory: int) -> None:
        """Where memory and swap together are limited too, to the same: the one may never pass below the other."""
        together = here / _MEMORY_AND_SWAP
        old = (read_number(together) or 0) if together.exists() else _UNLIMITED
        both = old < _UNLIMITED
        raising = memory < 0 or memory > old
        if both and raising:
            write(together, str(memory))
        write(here / "memory.limit_in_bytes", str(memory))
        if both and not raising:
            write(together, str(memory))

    def _in(self, controller: str, path: str) -> Path:
        return self.controllers[controller] / path.lstrip("/")
