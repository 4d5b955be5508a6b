"""Usage of the whole host, from /proc and the file systems."""

from __future__ import annotations

import os
from pathlib import Path

from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.cgroups_v1 import CgroupsV1
from nodewright_agent.runtime.cgroups_v2 import CgroupsV2
from nodewright_agent.usage.cgroupfiles import numbers, pressure, text_of
from nodewright_agent.usage.model import FsUsage, Interface, Processes, Usage

_FIELDS = 16
"""Numbers of one line of /proc/net/dev."""


def usage(cgroups: Cgroups, proc: Path = Path("/proc")) -> Usage:
    """CPU, memory and swap of the host.

    Memory is what cAdvisor says of the root cgroup in version 2: all that is not free, and as the working set what
    inactive files leave of it. memory.available is what of the capacity remains.
    """
    memory = meminfo(proc)
    total = memory.get("MemTotal", 0)
    used = max(0, total - memory.get("MemFree", 0))
    working_set = max(0, used - memory.get("Inactive(file)", 0))
    faults = numbers(proc / "vmstat")
    swap = memory.get("SwapTotal")
    return Usage(
        cpu_nanoseconds=_cpu(cgroups, proc),
        memory_usage_bytes=used,
        memory_working_set_bytes=working_set,
        memory_available_bytes=max(0, total - working_set),
        memory_rss_bytes=memory.get("AnonPages"),
        memory_cache_bytes=memory.get("Cached"),
        memory_mapped_bytes=memory.get("Mapped"),
        page_faults=faults.get("pgfault"),
        major_page_faults=faults.get("pgmajfault"),
        swap_usage_bytes=swap - memory.get("SwapFree", 0) if swap is not None else None,
        swap_available_bytes=memory.get("SwapFree"),
        cpu_pressure=pressure(proc / "pressure" / "cpu"),
        memory_pressure=pressure(proc / "pressure" / "memory"),
        io_pressure=pressure(proc / "pressure" / "io"),
        started_at=float(numbers(proc / "stat").get("btime", 0)) or None,
    )


def own(started_at: float) -> Usage:
    """The agent's own process and its ended children: what kubelet's system container shows."""
    times = os.times()
    resident, shared = (int(word) * os.sysconf("SC_PAGE_SIZE") for word in text_of("/proc/self/statm").split()[1:3])
    stat = text_of("/proc/self/stat").rpartition(")")[2].split()
    return Usage(
        cpu_nanoseconds=int((times.user + times.system + times.children_user + times.children_system) * 1e9),
        memory_usage_bytes=resident,
        memory_working_set_bytes=resident,
        memory_rss_bytes=max(0, resident - shared),
        page_faults=int(stat[7]) + int(stat[8]),
        major_page_faults=int(stat[9]) + int(stat[10]),
        started_at=started_at,
    )


def processes(proc: Path = Path("/proc")) -> Processes:
    """Processes and threads that exist, and how many the kernel allows."""
    running = int(text_of(proc / "loadavg").split()[3].partition("/")[2])
    limits = [text_of(proc / "sys/kernel" / name) for name in ("pid_max", "threads-max")]
    return Processes(running, min((int(limit) for limit in limits if limit.isdecimal()), default=0))


def file_system(path: Path, now: float, used: int | None = None, inodes_used: int | None = None) -> FsUsage:
    """The file system of a path; ``used`` is what of it belongs to whom this is about, else all that is used."""
    status = os.statvfs(path)
    return FsUsage(
        time=now,
        available=status.f_bavail * status.f_frsize,
        capacity=status.f_blocks * status.f_frsize,
        inodes_free=status.f_ffree,
        inodes=status.f_files,
        used=(status.f_blocks - status.f_bfree) * status.f_frsize if used is None else used,
        inodes_used=status.f_files - status.f_ffree if inodes_used is None else inodes_used,
    )


def interfaces(path: Path) -> list[Interface] | None:
    """Counters of a /proc/PID/net/dev, without the loopback; None when the process is gone."""
    try:
        text = path.read_text()
    except OSError:
        return None
    found = []
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        numbers = rest.split()
        if not colon or len(numbers) < _FIELDS or name.strip() == "lo":
            continue
        n = [int(word) for word in numbers]
        found.append(Interface(name.strip(), n[0], n[1], n[2], n[3], n[8], n[9], n[10], n[11]))
    return found


def meminfo(proc: Path = Path("/proc")) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in text_of(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def _cpu(cgroups: Cgroups, proc: Path) -> int:
    if isinstance(cgroups, CgroupsV1) and (text := text_of(cgroups.controllers["cpuacct"] / "cpuacct.usage")):
        return int(text)
    if isinstance(cgroups, CgroupsV2) and (micros := numbers(cgroups.mount / "cpu.stat").get("usage_usec")):
        return micros * 1000
    words = text_of(proc / "stat").splitlines()[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words)
    return (user + nice + system + irq + softirq + steal) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
