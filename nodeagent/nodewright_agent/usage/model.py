"""Usage as numbers; None where the kernel does not tell. Bytes, nanoseconds, and seconds since the epoch."""

from __future__ import annotations

import msgspec


class Stall(msgspec.Struct, frozen=True):
    """One line of a pressure file: shares in percent, and the total in microseconds."""

    avg10: float
    avg60: float
    avg300: float
    total: int


class Pressure(msgspec.Struct, frozen=True):
    """Pressure stall information of one resource."""

    some: Stall
    full: Stall


class Io(msgspec.Struct, frozen=True):
    """What block devices did for a cgroup."""

    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


class Usage(msgspec.Struct, kw_only=True):
    """What a cgroup has used."""

    cpu_nanoseconds: int | None = None  # since the cgroup was made
    cpu_user_nanoseconds: int | None = None
    cpu_system_nanoseconds: int | None = None
    cpu_nanocores: int | None = None  # per second, between the last two readings
    memory_working_set_bytes: int | None = None  # usage without inactive file pages, as upstream defines it
    memory_usage_bytes: int | None = None
    memory_available_bytes: int | None = None  # of a limit
    memory_limit_bytes: int | None = None
    memory_rss_bytes: int | None = None
    memory_cache_bytes: int | None = None
    memory_mapped_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_failures: int | None = None  # how often the limit was hit
    page_faults: int | None = None
    major_page_faults: int | None = None
    swap_usage_bytes: int | None = None
    swap_available_bytes: int | None = None
    processes: int | None = None
    threads: int | None = None
    threads_max: int | None = None
    oom_kills: int | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    io: Io | None = None
    cpu_pressure: Pressure | None = None
    memory_pressure: Pressure | None = None
    io_pressure: Pressure | None = None
    started_at: float | None = None  # seconds since the epoch


class FsUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A file system, and what of it is used by whom this is about."""

    time: float
    available: int
    capacity: int
    inodes_free: int
    inodes: int
    used: int | None = None
    inodes_used: int | None = None


class Interface(msgspec.Struct, frozen=True):
    """Counters of a network interface."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class ContainerUsage(msgspec.Struct):
    """Usage of one container."""

    name: str
    usage: Usage
    rootfs: FsUsage | None = None
    logs: FsUsage | None = None
    id: str = ""
    image: str = ""
    cgroup: str = ""


class VolumeUsage(msgspec.Struct, frozen=True):
    """Usage of one volume."""

    name: str
    fs: FsUsage
    claim: str = ""


class PodUsage(msgspec.Struct):
    """Usage of one pod and its containers."""

    namespace: str
    name: str
    uid: str
    usage: Usage
    containers: list[ContainerUsage]
    volumes: list[VolumeUsage] = []
    ephemeral: FsUsage | None = None
    network: list[Interface] | None = None
    cgroup: str = ""


class SystemUsage(msgspec.Struct):
    """Usage of a part of the node that is no pod: ``kubelet``, ``runtime``, ``pods``."""

    name: str
    usage: Usage


class Processes(msgspec.Struct, frozen=True):
    """Process ids of the node: those in use, and how many there may be."""

    running: int
    limit: int


class NodeUsage(msgspec.Struct):
    """Usage of the node and its pods, all read at `time` (seconds since the epoch)."""

    time: float
    usage: Usage
    pods: list[PodUsage]
    fs: FsUsage | None = None
    image_fs: FsUsage | None = None
    container_fs: FsUsage | None = None
    processes: Processes | None = None
    system: list[SystemUsage] = []
    network: list[Interface] | None = None
    default_interface: str = ""
