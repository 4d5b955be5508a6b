"""One cgroup's files to a ``Usage``, in both versions; what the kernel does not have is None."""

from __future__ import annotations

import os
from pathlib import Path

from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.cgroups_v1 import CgroupsV1
from nodewright_agent.runtime.cgroups_v2 import CgroupsV2
from nodewright_agent.usage.model import Io, Pressure, Stall, Usage

_UNLIMITED = 1 << 60
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_WEIGHTS, _SHARES = 9999, 262142


def read(cgroups: Cgroups, path: str, started_at: float | None = None) -> Usage:
    """Read a cgroup's usage. Raises FileNotFoundError when it is gone."""
    if isinstance(cgroups, CgroupsV1):
        usage = _read_v1(cgroups, path)
    else:
        assert isinstance(cgroups, CgroupsV2)
        usage = _read_v2(cgroups.mount / path.lstrip("/"))
    usage.started_at = started_at
    if usage.memory_limit_bytes is not None and usage.memory_working_set_bytes is not None:
        usage.memory_available_bytes = max(0, usage.memory_limit_bytes - usage.memory_working_set_bytes)
    return usage


def _read_v1(cgroups: CgroupsV1, path: str) -> Usage:
    def at(controller: str) -> Path:
        return cgroups.controllers[controller] / path.lstrip("/")

    memory, cpu, pids = at("memory"), at("cpu"), at("pids")
    if not memory.is_dir():
        raise FileNotFoundError(str(memory))
    table = numbers(memory / "memory.stat")
    used = _number(memory / "memory.usage_in_bytes") or 0
    limit = _number(memory / "memory.limit_in_bytes") or 0
    together = _number(memory / "memory.memsw.usage_in_bytes")
    times = numbers(at("cpuacct") / "cpuacct.stat")
    usage = Usage(
        cpu_nanoseconds=_number(at("cpuacct") / "cpuacct.usage"),
        cpu_user_nanoseconds=_times(times.get("user"), _TICK),
        cpu_system_nanoseconds=_times(times.get("system"), _TICK),
        memory_usage_bytes=used,
        memory_working_set_bytes=max(0, used - table.get("total_inactive_file", 0)),
        memory_limit_bytes=limit if limit < _UNLIMITED else None,
        memory_rss_bytes=table.get("total_rss"),
        memory_cache_bytes=table.get("total_cache"),
        memory_mapped_bytes=table.get("total_mapped_file"),
        memory_peak_bytes=_number(memory / "memory.max_usage_in_bytes"),
        memory_failures=_number(memory / "memory.failcnt"),
        page_faults=table.get("total_pgfault"),
        major_page_faults=table.get("total_pgmajfault"),
        swap_usage_bytes=max(0, together - used) if together is not None else None,
        processes=_number(pids / "pids.current"),
        threads=_number(pids / "pids.current"),
        threads_max=_number(pids / "pids.max"),
        oom_kills=numbers(memory / "memory.oom_control").get("oom_kill"),
        cpu_shares=_number(cpu / "cpu.shares"),
        cpu_period=_number(cpu / "cpu.cfs_period_us"),
        cpu_quota=_positive(_number(cpu / "cpu.cfs_quota_us")),
    )
    if "blkio" in cgroups.controllers:
        usage.io = _blkio(at("blkio"))
    if cgroups.unified is not None:
        _pressures(usage, cgroups.unified / path.lstrip("/"))
    return usage


def _read_v2(here: Path) -> Usage:
    cpu, table = numbers(here / "cpu.stat"), numbers(here / "memory.stat")
    if not cpu:
        raise FileNotFoundError(str(here))
    used = _number(here / "memory.current")
    quota, _, period = text_of(here / "cpu.max").partition(" ")
    swap, swap_limit = _number(here / "memory.swap.current"), _number(here / "memory.swap.max")
    usage = Usage(
        cpu_nanoseconds=_times(cpu.get("usage_usec"), 1000),
        cpu_user_nanoseconds=_times(cpu.get("user_usec"), 1000),
        cpu_system_nanoseconds=_times(cpu.get("system_usec"), 1000),
        memory_usage_bytes=used,
        memory_working_set_bytes=max(0, used - table.get("inactive_file", 0)) if used is not None else None,
        memory_limit_bytes=_number(here / "memory.max"),
        memory_rss_bytes=table.get("anon"),
        memory_cache_bytes=table.get("file"),
        memory_mapped_bytes=table.get("file_mapped"),
        memory_peak_bytes=_number(here / "memory.peak"),
        memory_failures=numbers(here / "memory.events").get("max"),
        page_faults=table.get("pgfault"),
        major_page_faults=table.get("pgmajfault"),
        swap_usage_bytes=swap,
        swap_available_bytes=swap_limit - swap if swap is not None and swap_limit is not None else None,
        processes=_number(here / "pids.current"),
        threads=_number(here / "pids.current"),
        threads_max=_number(here / "pids.max"),
        oom_kills=numbers(here / "memory.events").get("oom_kill"),
        cpu_shares=_shares(_number(here / "cpu.weight")),
        cpu_period=int(period) if period.isdecimal() else None,
        cpu_quota=int(quota) if quota.isdecimal() else None,
        io=_io(here / "io.stat"),
    )
    _pressures(usage, here)
    return usage


def pressure(path: Path) -> Pressure | None:
    """Read a pressure file; None where the kernel has none."""
    stalls: dict[str, Stall] = {}
    for line in text_of(path).splitlines():
        kind, *fields = line.split()
        values = dict(field.partition("=")[::2] for field in fields)
        try:
            stalls[kind] = Stall(
                float(values["avg10"]), float(values["avg60"]), float(values["avg300"]), int(values["total"])
            )
        except (KeyError, ValueError):
            return None
    nothing = Stall(0.0, 0.0, 0.0, 0)
    return Pressure(stalls["some"], stalls.get("full", nothing)) if "some" in stalls else None


def _pressures(usage: Usage, here: Path) -> None:
    usage.cpu_pressure = pressure(here / "cpu.pressure")
    usage.memory_pressure = pressure(here / "memory.pressure")
    usage.io_pressure = pressure(here / "io.pressure")


def _io(path: Path) -> Io | None:
    text = text_of(path)
    if not path.exists():
        return None
    sums = {"rbytes": 0, "wbytes": 0, "rios": 0, "wios": 0}
    for word in text.split():
        name, _, value = word.partition("=")
        if name in sums and value.isdecimal():
            sums[name] += int(value)
    return Io(sums["rbytes"], sums["wbytes"], sums["rios"], sums["wios"])


def _blkio(here: Path) -> Io | None:
    found = []
    for name in ("io_service_bytes", "io_serviced"):
        path = here / f"blkio.throttle.{name}_recursive"
        path = path if path.exists() else here / f"blkio.throttle.{name}"
        if not path.exists():
            return None
        sums = {"Read": 0, "Write": 0}
        for line in text_of(path).splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in sums:
                sums[words[1]] += int(words[2])
        found.append(sums)
    return Io(found[0]["Read"], found[0]["Write"], found[1]["Read"], found[1]["Write"])


def _shares(weight: int | None) -> int | None:
    """Turn a weight back into the shares that it was made of (linear conversion)."""
    return None if weight is None else 2 + ((weight - 1) * _SHARES) // _WEIGHTS


def text_of(path: Path | str) -> str:
    """A file's text without the white space around it; empty where it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = text_of(path)
    return int(text) if text.lstrip("-").isdecimal() else None


def numbers(path: Path) -> dict[str, int]:
    """The numbers of a file of names and values, one a line."""
    rows = (line.partition(" ") for line in text_of(path).splitlines())
    return {key: int(value) for key, _, value in rows if value.isdecimal()}


def _times(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor


def _positive(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None
