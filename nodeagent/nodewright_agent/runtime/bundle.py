"""From a ContainerSpec to a bundle that runc can create: directories, overlay root, checked links, config.json."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import capabilities, mounts, oci, rootfs, users
from nodewright_agent.runtime.errors import CreateContainerError
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.probe import RuntimeInfo
from nodewright_agent.runtime.spec import ContainerSpec, ContainerState, Mount
from nodewright_agent.runtime.store import Layout


def prepare(spec: ContainerSpec, state: ContainerState, layout: Layout, info: RuntimeInfo, host: HostSpace) -> None:
    """Make the bundle; fills in ``state``'s user. Undo with ``wipe``.

    All in directories that are shared with the host; the root is mounted here and reaches it (``hostspace``).

    Raises CreateContainerError, or OSError (disk full...).
    """
    _check_capabilities(spec, info)
    bundle, record = layout.bundle(spec.id), layout.record(spec.id)
    for directory in (bundle, bundle / "persist", bundle / "rootfs", record / "upper", record / "work"):
        directory.mkdir(mode=0o700)
    # The upper directory's mode is that of the container's /.
    os.chmod(record / "upper", 0o755)
    failpoint("create.directories")
    target = str(bundle / "rootfs")
    mounts.mount_overlay(target, [Path(layer) for layer in spec.lowers], str(record / "upper"), str(record / "work"))
    failpoint("create.mounted")
    checked = _check_root(spec, state, target)
    prepare_log(Path(spec.log_path))
    _write_config(bundle, oci.config(checked, host_facts(spec, state, layout, info, host)))
    failpoint("create.config")


def host_facts(
    spec: ContainerSpec, state: ContainerState, layout: Layout, info: RuntimeInfo, host: HostSpace
) -> oci.HostFacts:
    """What ``oci`` needs to know beside the spec."""
    return oci.HostFacts(
        rootfs=str(layout.rootfs(spec.id)),
        uid=state.uid,
        gid=state.gid,
        additional_gids=tuple(state.additional_gids),
        cgroup_version=info.cgroup_version,
        capabilities=info.capabilities,
        oom_score_floor=info.oom_score_floor,
        swap=info.limits_swap,
        devices=host.call(host_devices) if spec.privileged else (),
    )


def prepare_log(path: Path) -> None:
    """Make the log's directory. Raises CreateContainerError when the file is no regular one.

    A pod with /var/log mounted could have put a link to any file of the host in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise CreateContainerError(f"log path {path} exists and is not a regular file")


def host_devices() -> list[dict[str, Any]]:
    """The host's device nodes for a privileged container, without terminals and shared memory of the host.

    To be called in the host's namespace: an agent's own container has the devices of the moment in which it started.
    """
    found = []
    for current, directories, names in os.walk("/dev"):
        if current == "/dev":
            directories[:] = [name for name in directories if name not in ("pts", "shm", "fd", "mqueue", ".udev")]
        for name in names:
            path = os.path.join(current, name)
            info = os.lstat(path)
            kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
            if not kind or path == "/dev/console":
                continue
            found.append(
                {
                    "path": path,
                    "type": kind,
                    "major": os.major(info.st_rdev),
                    "minor": os.minor(info.st_rdev),
                    "fileMode": stat.S_IMODE(info.st_mode),
                    "uid": info.st_uid,
                    "gid": info.st_gid,
                }
            )
    return found


def _check_capabilities(spec: ContainerSpec, info: RuntimeInfo) -> None:
    lacking = [name for name in spec.capabilities or () if name in capabilities.ALL and name not in info.capabilities]
    if lacking and not spec.privileged:
        raise CreateContainerError(f"this node cannot grant {', '.join(lacking)}: its agent runs without")


def _check_root(spec: ContainerSpec, state: ContainerState, target: str) -> ContainerSpec:
    """Look at the mounted root; the spec with the mounts' destinations resolved inside the image."""
    fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rootfs.check_reserved(fd)
        rootfs.check_working_directory(fd, spec.cwd)
        where = rootfs.resolve_mounts(fd, [mount.destination for mount in spec.mounts])
        user = users.resolve(spec.user, users.read_bounded(fd, "etc/passwd"), users.read_bounded(fd, "etc/group"))
    finally:
        os.close(fd)
    state.uid, state.gid, state.additional_gids = user.uid, user.gid, list(user.additional_gids)
    if all(where[path] == path for path in where):
        return spec
    moved = [Mount(mount.source, where[mount.destination], mount.type, mount.options) for mount in spec.mounts]
    return msgspec.structs.replace(spec, mounts=moved)


def _write_config(bundle: Path, config: dict[str, Any]) -> None:
    try:
        data = msgspec.json.encode(config)
    except UnicodeEncodeError as error:
        raise CreateContainerError(f"the container's settings are not valid UTF-8: {error}") from None
    fd = os.open(bundle / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        if file.write(data) != len(data):
            raise OSError(errno.EIO, "short write", str(bundle / "config.json"))
