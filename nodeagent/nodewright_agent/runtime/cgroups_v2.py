"""cgroup v2 (unified)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from nodewright_agent.runtime.cgroup_math import shares_of, weight
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

WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
_DEFAULT_PERIOD = 100_000


class CgroupsV2(Cgroups):
    """The one hierarchy, mounted at ``mount``."""

    version = 2

    def __init__(self, mount: Path) -> None:
        self.mount = mount

    def hierarchies(self) -> Iterator[Path]:
        """The mount itself."""
        return iter((self.mount,))

    def mount_of(self, controllers: str) -> Path | None:
        """See ``Cgroups.mount_of``."""
        return None if controllers else self.mount

    def create(self, path: str, limits: CgroupLimits | None = None) -> None:
        """See ``Cgroups.create``. Controllers are enabled in each ancestor, never in the cgroup itself.

        A cgroup with processes may not hand controllers to children; whoever has children enables them then.
        """
        parent = self.mount
        for level in ancestors(path):
            self._enable(parent)
            parent = self.mount / level.lstrip("/")
            parent.mkdir(exist_ok=True)
        if limits is not None:
            self.update(path, limits)

    def update(self, path: str, limits: CgroupLimits) -> None:
        """See ``Cgroups.update``; shares become a weight by the conversion of runc 1.1."""
        here = self._at(path)
        if limits.cpu_shares is not None:
            write(here / "cpu.weight", str(weight(limits.cpu_shares)))
        if limits.cpu_quota is not None or limits.cpu_period is not None:
            quota = "max" if limits.cpu_quota is None or limits.cpu_quota < 0 else str(limits.cpu_quota)
            write(here / "cpu.max", f"{quota} {limits.cpu_period or _DEFAULT_PERIOD}")
        if limits.memory is not None:
            write(here / "memory.max", "max" if limits.memory < 0 else str(limits.memory))
        if limits.pids is not None:
            write(here / "pids.max", "max" if limits.pids < 0 else str(limits.pids))
        for size, amount in (limits.hugepages or {}).items():
            write(here / f"hugetlb.{size}.max", "max" if amount < 0 else str(amount))

    def limits(self, path: str) -> CgroupLimits:
        """See ``Cgroups.limits``; shares are those that a weight stands for, which is not exact."""
        here = self._at(path)
        quota, _, period = (here / "cpu.max").read_text().strip().partition(" ")
        memory, pids = read_number(here / "memory.max"), read_number(here / "pids.max")
        return CgroupLimits(
            cpu_shares=shares_of(read_number(here / "cpu.weight") or 1),
            cpu_quota=-1 if quota == "max" else int(quota),
            cpu_period=int(period),
            memory=-1 if memory is None else memory,
            pids=-1 if pids is None else pids,
        )

    def hugepage_sizes(self, path: str) -> list[str]:
        """See ``Cgroups.hugepage_sizes``."""
        return page_sizes(self._at(path), "max")

    def stats(self, path: str) -> CgroupStats:
        """See ``Cgroups.stats``."""
        here = self._at(path)
        table = read_table(here / "memory.stat")
        usage = read_number(here / "memory.current") or 0
        return CgroupStats(
            cpu_usage_ns=read_table(here / "cpu.stat")["usage_usec"] * 1000,
            memory_usage=usage,
            memory_working_set=max(0, usage - table.get("inactive_file", 0)),
            memory_rss=table.get("anon", 0),
            memory_limit=read_number(here / "memory.max"),
            pids=read_number(here / "pids.current") or 0,
            page_faults=table.get("pgfault", 0),
            major_page_faults=table.get("pgmajfault", 0),
        )

    def oom_kills(self, path: str) -> int:
        """See ``Cgroups.oom_kills``. memory.events.local (5.2) leaves descendants out; else memory.events."""
        here = self._at(path)
        for name in ("memory.events.local", "memory.events"):
            try:
                table = read_table(here / name)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENODEV):
                    continue
                raise
            if "oom_kill" in table:
                return table["oom_kill"]
        return 0

    def limits_swap(self, path: str) -> bool:
        """See ``Cgroups.limits_swap``."""
        return (self._at(path) / "memory.swap.max").exists()

    def enter(self, path: str, pid: int, *, everywhere: bool = False) -> None:
        """See ``Cgroups.enter``: there is only one."""
        write(self._at(path) / "cgroup.procs", str(pid))

    def _at(self, path: str) -> Path:
        return self.mount / path.lstrip("/")

    def _enable(self, directory: Path) -> None:
        available = (directory / "cgroup.controllers").read_text().split()
        control = directory / "cgroup.subtree_control"
        enabled = control.read_text().split()
        missing = [name for name in WANTED if name in available and name not in enabled]
        if missing:
            write(control, " ".join(f"+{name}" for name in missing))
