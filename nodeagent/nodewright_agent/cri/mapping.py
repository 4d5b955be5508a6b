"""CRI's ContainerConfig to the runtime's ContainerSpec, by the rules of containerd's CRI plugin."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodewright_agent.cri import security, wire
from nodewright_agent.cri.errors import Invalid, Lacking
from nodewright_agent.cri.records import Sandbox
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import ContainerSpec, Device, Mount, Resources

_OOM_GROUP, _NO_SWAP = "memory.oom.group", ("memory.swap.max", "0")
"""The values of cgroup v2 that every kubelet asks for. Containers have no swap anyway."""
_PROPAGATION = {0: "rprivate", 1: "rslave", 2: "rshared"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container goes: its sandbox, the sandbox's namespaces and directory of files."""

    sandbox: Sandbox
    paths: SandboxPaths
    files: Path
    pid_ns: str | None = None
    """A path, ``host``, or None for its own."""
    program: str = ""
    """The OCI runtime of the handler; empty: the default one."""
    app_armor: bool = False
    page_sizes: Sequence[str] = ()
    """Huge pages that the kernel can limit here."""


def container_spec(cid: str, config: Any, image: Image, place: Place) -> ContainerSpec:
    """The runtime's order. Raises Invalid and Lacking; OSError for a device that is not there."""
    sandbox, context = place.sandbox, config.linux.security_context
    if context.privileged and not sandbox.config.linux.security_context.privileged:
        raise Invalid("no privileged container allowed in sandbox: the sandbox is not privileged")
    if config.CDI_devices:
        raise Lacking("CDI_devices: the container device interface is not implemented")
    granted = security.capabilities(context)
    meta = sandbox.config.metadata
    return ContainerSpec(
        id=cid,
        pod_uid=sandbox.id,
        pod_name=meta.name,
        pod_namespace=meta.namespace,
        name=config.metadata.name,
        attempt=config.metadata.attempt,
        lowers=[str(layer) for layer in image.layers],
        argv=command(config, image),
        env=environment(config, image),
        cwd=config.working_dir or image.config.working_dir or "/",
        user=security.user(context, image.config.user),
        hostname=sandbox.hostname,
        netns=place.paths.net,
        ipc_ns=place.paths.ipc,
        uts_ns=place.paths.uts,
        pid_ns=place.pid_ns,
        user_ns=place.paths.user,
        ids=sandbox.ids,
        mounts=[*mounts(config), *own_files(config, place)],
        image_volumes=image_volumes(config, image),
        devices=list(devices(config)),
        resources=resources(config.linux.resources, place.page_sizes),
        oom_score_adj=config.linux.resources.oom_score_adj,
        oom_group=config.linux.resources.unified.get(_OOM_GROUP) == "1",
        runtime=place.program,
        capabilities=granted,
        privileged=context.privileged,
        read_only_rootfs=context.readonly_rootfs,
        no_new_privileges=context.no_new_privs,
        seccomp=security.seccomp_profile(context, granted),
        app_armor=security.app_armor(context, place.app_armor),
        # As they are given, also when that is none: kubelet says so for procMount Unmasked.
        masked_paths=list(context.masked_paths),
        read_only_paths=list(context.readonly_paths),
        log_path=log_path(sandbox.config, config),
        tty=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        stop_signal=stop_signal(config, image),
        cgroup_parent=sandbox.cgroup,
    )


def command(config: Any, image: Image) -> list[str]:
    """The argument vector: a command replaces the image's entrypoint and, without args, its cmd too. Raises Invalid."""
    if config.command:
        return [*config.command, *config.args]
    words = [*image.config.entrypoint, *(config.args or image.config.cmd)]
    if not words:
        raise Invalid("no command specified: neither the container nor its image has one")
    return words


def environment(config: Any, image: Image) -> list[str]:
    """The variables: the image's, replaced by the container's of the same name."""
    own = {entry.key: entry.value for entry in config.envs}
    kept = [entry for entry in image.config.env if entry.partition("=")[0] not in own]
    return [*kept, *(f"{name}={value}" for name, value in own.items())]


def mounts(config: Any) -> list[Mount]:
    """The container's own mounts, links of the host followed; images have their places. Raises Invalid, Lacking."""
    return [_mount(mount) for mount in config.mounts]


def _mount(mount: Any) -> Mount:
    if not mount.host_path.startswith("/"):
        raise Invalid(f"mount {mount.container_path}: host_path {mount.host_path!r} is not an absolute path")
    if list(mount.uidMappings) != list(mount.gidMappings):
        # The pod's user namespace is applied to all its mounts.
        raise Lacking(f"mount {mount.container_path}: uidMappings and gidMappings that differ")
    if mount.recursive_read_only and (not mount.readonly or mount.propagation != wire.PROPAGATION_PRIVATE):
        raise Invalid(f"mount {mount.container_path}: recursive_read_only needs readonly and PROPAGATION_PRIVATE")
    access = "rro" if mount.recursive_read_only else "ro" if mount.readonly else "rw"
    destination = mount.container_path if mount.container_path.startswith("/") else f"/{mount.container_path}"
    # What leads to a place in an image has been followed inside the image.
    source = mount.host_path if mount.HasField("image") else os.path.realpath(mount.host_path)
    return Mount(source, destination, "bind", ["rbind", _PROPAGATION[mount.propagation], access])


def make_sources(config: Any) -> None:
    """Make the directories that are to be mounted and do not exist, as containerd does. Raises OSError."""
    for mount in config.mounts:
        if mount.host_path and not os.path.exists(mount.host_path):
            os.makedirs(os.path.realpath(mount.host_path), mode=0o755)


def own_files(config: Any, place: Place) -> list[Mount]:
    """The sandbox's files and shared memory, but for what the container mounts itself."""
    taken = {mount.container_path.rstrip("/") for mount in config.mounts}
    access = "ro" if config.linux.security_context.readonly_rootfs else "rw"
    files = [(str(place.files / name), f"/etc/{name}") for name in ("hosts", "hostname", "resolv.conf")]
    found = [Mount(source, target, "bind", ["rbind", "rprivate", access]) for source, target in files]
    shared = Mount(place.paths.shm, "/dev/shm", "bind", ["rbind", "rprivate", "nosuid", "nodev", "noexec", "rw"])
    return [mount for mount in [*found, shared] if mount.destination not in taken]


def image_volumes(config: Any, image: Image) -> list[str]:
    """The image's volumes that nothing is mounted on: writable in a read-only root file system too."""
    if not config.linux.security_context.readonly_rootfs:
        return []
    taken = {mount.container_path.rstrip("/") for mount in config.mounts}
    return [path for path in image.config.volumes if path not in taken]


def devices(config: Any) -> Iterator[Device]:
    """The host's devices that were asked for; of a directory all below it. Raises Invalid, OSError."""
    for wanted in config.devices:
        access = wanted.permissions or "rwm"
        if set(access) - set("rwm"):
            raise Invalid(f"device {wanted.host_path}: permissions {access!r} are not of r, w and m")
        path = os.path.realpath(wanted.host_path)
        target = wanted.container_path or wanted.host_path
        if os.path.isdir(path):
            for current, _, names in os.walk(path):
                inner = os.path.join(target, os.path.relpath(current, path))
                for name in names:
                    yield from _device(os.path.join(current, name), os.path.normpath(f"{inner}/{name}"), access)
        elif not (found := list(_device(path, target, access))):
            raise Invalid(f"{wanted.host_path} is not a device node")
        else:
            yield from found


def _device(path: str, target: str, access: str) -> Iterator[Device]:
    info = os.lstat(path)
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if kind:
        major, minor, mode = os.major(info.st_rdev), os.minor(info.st_rdev), stat.S_IMODE(info.st_mode)
        yield Device(
            path=target, major=major, minor=minor, kind=kind, mode=mode, uid=info.st_uid, gid=info.st_gid, access=access
        )


def resources(given: Any, page_sizes: Sequence[str]) -> Resources:
    """Limits; CRI's 0 is "not set". Raises Lacking for those that the runtime does not set.

    A kubelet forbids huge pages of each size by a limit of 0, also where the kernel limits none: containerd leaves that
    out, and so do we. A limit that would give some is refused there.
    """
    for field in ("cpuset_cpus", "cpuset_mems"):
        if getattr(given, field):
            raise Lacking(f"resources.{field} is not implemented")
    if others := sorted({key for key, value in given.unified.items() if (key, value) != _NO_SWAP} - {_OOM_GROUP}):
        raise Lacking(f"resources.unified: {', '.join(others)} is not implemented")
    pages = {entry.page_size: entry.limit for entry in given.hugepage_limits}
    if unknown := [size for size, limit in pages.items() if limit and size not in page_sizes]:
        raise Lacking(f"resources.hugepage_limits: this kernel cannot limit pages of {', '.join(unknown)}")
    return Resources(
        cpu_shares=given.cpu_shares or None,
        cpu_quota=given.cpu_quota or None,
        cpu_period=given.cpu_period or None,
        memory_limit=given.memory_limit_in_bytes or None,
        hugepages={size: limit for size, limit in pages.items() if size in page_sizes},
    )


def log_path(sandbox: Any, config: Any) -> str:
    """Where the log goes; empty: nowhere, as one of the two parts is not given."""
    if not sandbox.log_directory or not config.log_path:
        return ""
    return str(os.path.join(sandbox.log_directory, config.log_path))


def stop_signal(config: Any, image: Image) -> str:
    """The signal that stops the container: its own, the image's, SIGTERM."""
    return wire.signal_name(config.stop_signal) or image.config.stop_signal or "SIGTERM"
