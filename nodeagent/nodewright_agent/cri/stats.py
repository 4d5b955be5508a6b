"""Usage of containers and sandboxes, read from the kernel when it is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from nodewright_agent.cri import wire
from nodewright_agent.cri.clock import now
from nodewright_agent.cri.parts import Parts
from nodewright_agent.cri.records import Container, Sandbox
from nodewright_agent.runtime.cgroups import CgroupStats
from nodewright_agent.usage import disk, host
from nodewright_agent.usage.model import Interface


async def container(parts: Parts, record: Container) -> Any | None:
    """A ContainerStats; None: it does not run."""
    run = parts.runtime.find(record.id)
    if run is None or not run.running:
        return None
    try:
        used = await asyncio.to_thread(parts.runtime.cgroups.stats, run.cgroup)
    except OSError:
        return None  # it has ended just now
    at = now()
    found = wire.ContainerStats(
        attributes=wire.ContainerAttributes(
            id=record.id,
            metadata=record.config.metadata,
            labels=record.config.labels,
            annotations=record.config.annotations,
        ),
        cpu=_cpu(used, at),
        memory=_memory(used, at),
    )
    layer = parts.runtime.layout.record(record.id) / "upper"
    try:
        size, entries = await asyncio.to_thread(disk.measure, layer)
    except (disk.TooLarge, OSError):
        return found  # without what is not known
    found.writable_layer.CopyFrom(
        wire.FilesystemUsage(
            timestamp=at,
            fs_id=wire.FilesystemIdentifier(mountpoint=str(parts.runtime.layout.state)),
            used_bytes=_value(size),
            inodes_used=_value(entries),
        )
    )
    return found


async def sandbox(parts: Parts, record: Sandbox) -> Any:
    """A PodSandboxStats."""
    found = wire.PodSandboxStats(
        attributes=wire.PodSandboxAttributes(
            id=record.id,
            metadata=record.config.metadata,
            labels=record.config.labels,
            annotations=record.config.annotations,
        )
    )
    inner = await asyncio.gather(*(container(parts, one) for one in parts.records.of_sandbox(record.id)))
    found.linux.containers.extend(one for one in inner if one is not None)
    at = now()
    try:
        used = await asyncio.to_thread(parts.runtime.cgroups.stats, record.cgroup)
    except OSError:
        return found  # it has been removed just now
    found.linux.cpu.CopyFrom(_cpu(used, at))
    found.linux.memory.CopyFrom(_memory(used, at))
    found.linux.process.timestamp = at
    found.linux.process.process_count.value = used.pids
    _network(found.linux.network, _interfaces(parts, record), at)
    return found


def _interfaces(parts: Parts, record: Sandbox) -> list[Interface]:
    """The links of a sandbox, seen through any process in it; none while none runs."""
    if not record.ip:
        return []
    for run in parts.runtime.of_pod(record.id):
        if run.running and (found := host.interfaces(Path(f"/proc/{run.state.pid}/net/dev"))) is not None:
            return found
    return []


def _network(target: Any, found: list[Interface], at: int) -> None:
    if not found:
        return
    target.timestamp = at
    for one in found:
        usage = target.default_interface if one.name == "eth0" else target.interfaces.add()
        usage.name = one.name
        usage.rx_bytes.value, usage.rx_errors.value = one.rx_bytes, one.rx_errors
        usage.tx_bytes.value, usage.tx_errors.value = one.tx_bytes, one.tx_errors


def _cpu(used: CgroupStats, at: int) -> Any:
    return wire.CpuUsage(timestamp=at, usage_core_nano_seconds=_value(used.cpu_usage_ns))


def _memory(used: CgroupStats, at: int) -> Any:
    limit = used.memory_limit
    return wire.MemoryUsage(
        timestamp=at,
        working_set_bytes=_value(used.memory_working_set),
        available_bytes=_value(max(0, limit - used.memory_working_set)) if limit is not None else None,
        usage_bytes=_value(used.memory_usage),
        rss_bytes=_value(used.memory_rss),
        page_faults=_value(used.page_faults),
        major_page_faults=_value(used.major_page_faults),
    )


def _value(number: int) -> Any:
    return wire.UInt64Value(value=number)
