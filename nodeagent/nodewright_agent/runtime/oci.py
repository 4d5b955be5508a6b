"""ContainerSpec -> config.json of the OCI runtime specification. Pure: no I/O, no clock.

Defaults are those of CRI runtimes, so that an image behaves as under containerd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nodewright_agent.runtime import capabilities as caps
from nodewright_agent.runtime.spec import ContainerSpec, Device, Mount, container_cgroup

OCI_VERSION = "1.0.2"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM = "TERM=xterm"

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime found out about the host and the image, for one container."""

    rootfs: str
    uid: int
    gid: int
    additional_gids: Sequence[int] = ()
    cgroup_version: int
    capabilities: Sequence[str] = caps.ALL
    """What the agent itself may pass on."""
    oom_score_floor: int = -1000
    """Lowest oom_score_adj that the agent may set."""
    swap: bool = True
    """Whether swap can be limited."""
    recursive_read_only: bool = False
    """Whether the OCI runtime knows the mount option ``rro``."""
    masked_paths: Sequence[str] = ()
    """Of this host alone, to be masked beside ``MASKED_PATHS``."""
    devices: Sequence[dict[str, Any]] = ()
    """The host's device nodes; only read for privileged containers."""


def config(spec: ContainerSpec, host: HostFacts) -> dict[str, Any]:
    """The bundle's config.json."""
    return {
        "ociVersion": OCI_VERSION,
        "process": process(spec, host),
        "root": {"path": host.rootfs, "readonly": spec.read_only_rootfs},
        "mounts": [_mount(mount) for mount in all_mounts(spec, recursive=host.recursive_read_only)],
        "linux": _linux(spec, host),
    }


def process(
    spec: ContainerSpec,
    host: HostFacts,
    argv: Sequence[str] | None = None,
    *,
    tty: bool | None = None,
    env: Sequence[str] = (),
) -> dict[str, Any]:
    """The OCI process object; with ``argv`` that of a command executed in the same container."""
    granted = granted_capabilities(spec, host)
    result: dict[str, Any] = {
        "terminal": spec.tty if tty is None else tty,
        "user": {"uid": host.uid, "gid": host.gid, "additionalGids": list(host.additional_gids)},
        "args": list(spec.argv if argv is None else argv),
        "env": [*environment(spec), *env],
        "cwd": spec.cwd,
        # No inheritable set (CVE-2022-24769) and no ambient one, as CRI runtimes.
        "capabilities": {"bounding": granted, "effective": granted, "permitted": granted},
        "noNewPrivileges": spec.no_new_privileges,
    }
    if spec.app_armor:
        result["apparmorProfile"] = spec.app_armor
    if argv is None:
        # Written always: where it is absent the process inherits whatever its monitor has.
        result["oomScoreAdj"] = max(spec.oom_score_adj, host.oom_score_floor)
    return result


def environment(spec: ContainerSpec) -> list[str]:
    """The variables: PATH, HOSTNAME and, with a terminal, TERM where the image and the pod do not set them."""
    names = {entry.partition("=")[0] for entry in spec.env}
    first = [] if "PATH" in names else [DEFAULT_PATH]
    if spec.tty and "TERM" not in names:
        first.append(TERM)
    if spec.hostname and "HOSTNAME" not in names:
        first.append(f"HOSTNAME={spec.hostname}")
    return first + spec.env


def granted_capabilities(spec: ContainerSpec, host: HostFacts) -> list[str]:
    """Privileged: all that the agent has. Otherwise the spec's list, or the default set."""
    if spec.privileged:
        return [name for name in caps.ALL if name in host.capabilities]
    return list(caps.DEFAULT if spec.capabilities is None else spec.capabilities)


def default_mounts(spec: ContainerSpec, *, recursive: bool = False) -> list[Mount]:
    """/proc, /dev and the rest, as CRI runtimes mount them; /sys and cgroups writable only for privileged ones.

    ``recursive``: the runtime can make all that lies below a mount read-only with it.
    """
    access = "rw" if spec.privileged else "ro"
    flags = ["nosuid", "noexec", "nodev"]
    sys = Mount("sysfs", "/sys", "sysfs", [*flags, access])
    if spec.user_ns is not None and spec.netns is None:
        # A new sysfs shows a network namespace, and only its owner may mount one: this is the host's (KEP-5607).
        below = ["rro"] if recursive and access == "ro" else []
        sys = Mount("/sys", "/sys", "bind", ["rbind", "rprivate", *flags, access, *below])
    return [
        Mount("proc", "/proc", "proc", flags),
        Mount("tmpfs", "/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Mount(
            "devpts", "/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        Mount("mqueue", "/dev/mqueue", "mqueue", flags),
        sys,
        Mount("cgroup", "/sys/fs/cgroup", "cgroup", [*flags, "relatime", access]),
        Mount("shm", "/dev/shm", "tmpfs", [*flags, "mode=1777", "size=65536k"]),
    ]


def all_mounts(spec: ContainerSpec, *, recursive: bool = False) -> list[Mount]:
    """Defaults and the pod's own, parents before children; a pod's mount replaces a default of the same destination."""
    own = list(spec.mounts)
    if spec.termination_log:
        own.append(Mount(spec.termination_log, spec.termination_message_path, "bind", ["rbind", "rprivate", "rw"]))
    taken = {_normal(mount.destination) for mount in own}
    defaults = [mount for mount in default_mounts(spec, recursive=recursive) if mount.destination not in taken]
    return defaults + sorted(own, key=lambda mount: _normal(mount.destination).count("/"))


def _normal(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part and part != ".")


def _mount(mount: Mount) -> dict[str, Any]:
    options = list(mount.options)
    if mount.type == "bind":
        if not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
        if not {"private", "rprivate", "slave", "rslave", "shared", "rshared"} & set(options):
            options.append("rprivate")
    return {"destination": mount.destination, "type": mount.type, "source": mount.source, "options": options}


def _device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _linux(spec: ContainerSpec, host: HostFacts) -> dict[str, Any]:
    result: dict[str, Any] = {
        "namespaces": _namespaces(spec, host.cgroup_version),
        "cgroupsPath": container_cgroup(spec),
        "resources": _resources(spec, host),
        "rootfsPropagation": _root_propagation(spec),
    }
    if spec.ids is not None:
        mapping = [{"containerID": 0, "hostID": spec.ids.start, "size": spec.ids.length}]
        result["uidMappings"] = result["gidMappings"] = mapping
    own = [_device(device) for device in spec.devices]
    if spec.privileged:
        taken = {device.path for device in spec.devices}
        result["devices"] = [*(device for device in host.devices if device["path"] not in taken), *own]
        return result
    if own:
        result["devices"] = own
    if spec.seccomp is not None:
        result["seccomp"] = spec.seccomp
    result["maskedPaths"] = [*MASKED_PATHS, *host.masked_paths] if spec.masked_paths is None else spec.masked_paths
    result["readonlyPaths"] = list(READ_ONLY_PATHS if spec.read_only_paths is None else spec.read_only_paths)
    return result


def _root_propagation(spec: ContainerSpec) -> str:
    """runc makes all private first unless told otherwise; a mount that receives or shares needs its root to do so."""
    options = {option for mount in spec.mounts for option in mount.options}
    if options & {"rshared", "shared"}:
        return "rshared"
    return "rslave" if options & {"rslave", "slave"} else "rprivate"


def _namespaces(spec: ContainerSpec, cgroup_version: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = [{"type": "mount"}]
    joined = (("user", spec.user_ns), ("network", spec.netns), ("ipc", spec.ipc_ns), ("uts", spec.uts_ns))
    for kind, path in joined:
        if path is not None:
            found.append({"type": kind, "path": path})
    if spec.pid_ns is None:
        found.append({"type": "pid"})
    elif spec.pid_ns != "host":
        found.append({"type": "pid", "path": spec.pid_ns})
    if cgroup_version == 2 and not spec.privileged:
        # The container then sees its own cgroup at /sys/fs/cgroup, as it does on v1.
        found.append({"type": "cgroup"})
    return found


def _resources(spec: ContainerSpec, host: HostFacts) -> dict[str, Any]:
    limits = spec.resources
    allowed = [
        {"allow": True, "type": one.kind, "major": one.major, "minor": one.minor, "access": one.access}
        for one in spec.devices
    ]
    result: dict[str, Any] = {"devices": [{"allow": spec.privileged, "access": "rwm"}, *allowed]}
    cpu = {"shares": limits.cpu_shares, "quota": limits.cpu_quota, "period": limits.cpu_period}
    if given := {name: value for name, value in cpu.items() if value is not None}:
        result["cpu"] = given
    if limits.memory_limit is not None:
        result["memory"] = {"limit": limits.memory_limit}
        if host.swap:
            # Memory and swap together: no swap for containers (NoSwap).
            result["memory"]["swap"] = limits.memory_limit
    if limits.pids_limit is not None:
        result["pids"] = {"limit": limits.pids_limit}
    if limits.hugepages:
        result["hugepageLimits"] = [
            {"pageSize": size, "limit": limit} for size, limit in sorted(limits.hugepages.items())
        ]
    if host.cgroup_version == 2 and (unified := _unified(spec, host)):
        result["unified"] = unified
    return result


def _unified(spec: ContainerSpec, host: HostFacts) -> dict[str, str]:
    found = {}
    if spec.oom_group:  # Kubernetes since 1.28: a container dies of memory as a whole
        found["memory.oom.group"] = "1"
    if host.swap and spec.resources.memory_limit is None:  # NoSwap holds for containers without a limit too
        found["memory.swap.max"] = "0"
    return found
