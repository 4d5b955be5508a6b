"""From a ContainerSpec to a bundle that runc can create: directories, overlay root, checked links, config.json."""

from __future__ import annotations

import errno
import functools
import glob
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import apparmor, capabilities, features, idmap, mounts, oci, rootfs, users
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
    _check_app_armor(spec, info)
    _check_handler(spec, info)
    bundle, record = layout.bundle(spec.id), layout.record(spec.id)
    for directory in (bundle, bundle / "persist", bundle / "rootfs", record / "upper", record / "work"):
        directory.mkdir(mode=0o700)
    # The upper directory's mode is that of the container's /.
    os.chmod(record / "upper", 0o755)
    failpoint("create.directories")
    target = str(bundle / "rootfs")
    lowers, upper, work = [Path(layer) for layer in spec.lowers], str(record / "upper"), str(record / "work")
    if spec.user_ns is None:
        mounts.mount_overlay(target, lowers, upper, work)
    else:
        _open_way(spec, layout)
        idmap.mount_overlay(target, lowers, upper, work, spec.user_ns, bundle / "layers")
    failpoint("create.mounted")
    checked = _check_root(spec, state, target)
    if spec.user_ns is not None:
        checked = host.call(lambda: _shifted(checked, spec.user_ns or "", bundle / "mounts"))
    if spec.image_volumes:
        checked = _with_image_volumes(checked, target)
    if spec.log_path:
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
        recursive_read_only=info.recursive_read_only,
        masked_paths=thermal_paths(),
        devices=host.call(host_devices) if spec.privileged else (),
    )


@functools.cache
def thermal_paths() -> tuple[str, ...]:
    """Each CPU's thermal throttling: tells containers of their neighbours (kubelet masks it since 1.34)."""
    return tuple(sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")))


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
    asked = spec.capabilities or ()
    if unknown := [name for name in asked if name not in capabilities.ALL]:
        # runc would leave it out with a warning that nobody sees.
        raise CreateContainerError(f"there is no capability {', '.join(unknown)}")
    lacking = [name for name in asked if name not in info.capabilities]
    if lacking and not spec.privileged:
        raise CreateContainerError(f"this node cannot grant {', '.join(lacking)}: its agent runs without")


def _open_way(spec: ContainerSpec, layout: Layout) -> None:
    """The pod's root must get to its root file system by path, and no other user of the host: it is one in a group."""
    assert spec.ids is not None
    for directory in (layout.run, layout.bundles):
        os.chmod(directory, 0o711)
    bundle, upper = layout.bundle(spec.id), layout.record(spec.id) / "upper"
    os.chown(bundle, 0, spec.ids.start)
    os.chmod(bundle, 0o710)
    os.chmod(bundle / "rootfs", 0o755)
    os.chown(upper, spec.ids.start, spec.ids.start)


def _shifted(spec: ContainerSpec, user_ns: str, directory: Path) -> ContainerSpec:
    """The spec with every bind mount shown through the pod's user namespace, from below ``directory`` (made)."""
    directory.mkdir(mode=0o700)

    def shifted(source: str, name: str, options: Sequence[str]) -> str:
        try:
            idmap.bind(source, directory / name, user_ns, recursive="bind" not in options)
        except OSError as error:
            raise CreateContainerError(f"cannot mount {source} into a user namespace: {error}") from error
        return str(directory / name)

    moved = []
    for index, mount in enumerate(spec.mounts):
        if mount.type == "bind":
            options = _locked(mount.source, mount.options)
            source = mount.source if mount.shifted else shifted(mount.source, str(index), options)
            mount = msgspec.structs.replace(mount, source=source, options=options)
        moved.append(mount)
    log = shifted(spec.termination_log, "end", ()) if spec.termination_log else ""
    return msgspec.structs.replace(spec, mounts=moved, termination_log=log)


def _locked(source: str, options: Sequence[str]) -> list[str]:
    """Mount options with those that the source has: a user namespace may take none of them away."""
    has = os.statvfs(source).f_flag
    flags = ((os.ST_NOSUID, "nosuid"), (os.ST_NODEV, "nodev"), (os.ST_NOEXEC, "noexec"))
    added = [name for flag, name in flags if has & flag and name not in options]
    kept = ["ro" if option == "rw" and has & os.ST_RDONLY else option for option in options]
    return [*kept, *added]


def _check_app_armor(spec: ContainerSpec, info: RuntimeInfo) -> None:
    if not spec.app_armor or spec.app_armor == apparmor.UNCONFINED:
        return
    if not info.app_armor:
        raise CreateContainerError("apparmor is not enabled on the host")
    if spec.app_armor not in apparmor.loaded():
        raise CreateContainerError(f"apparmor profile not found {spec.app_armor}")


def _check_handler(spec: ContainerSpec, info: RuntimeInfo) -> None:
    """A runtime that does not know a wish would not refuse it, but leave it out."""
    if not spec.runtime:
        return
    can = info.handlers.get(spec.runtime) or features.RuntimeFeatures()
    if spec.user_ns is not None and not can.user_namespaces:
        text = f"RuntimeClass handler's {spec.runtime} does not support user namespaces"
        raise CreateContainerError(f"can't set `spec.hostUsers: false`, {text}")
    for mount in spec.mounts:
        if "rro" in mount.options and not can.recursive_read_only:
            text = "requested recursive read-only mode, but it is not supported by the runtime"
            raise CreateContainerError(f'volume at "{mount.destination}" {text}')


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
    _check_ids(spec, user)
    state.uid, state.gid, state.additional_gids = user.uid, user.gid, list(user.additional_gids)
    if all(where[path] == path for path in where):
        return spec
    moved = [msgspec.structs.replace(mount, destination=where[mount.destination]) for mount in spec.mounts]
    return msgspec.structs.replace(spec, mounts=moved)


def _with_image_volumes(spec: ContainerSpec, target: str) -> ContainerSpec:
    """The spec with directories of the root mounted onto themselves, writable; those that are missing are made.

    The content is the image's and what is written belongs to the writable layer, so that it is counted and goes with
    the container, as with CRI runtimes, which copy it.
    """
    root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        where = [rootfs.resolve(root, path, "image volume") for path in spec.image_volumes]
        for path in where:
            rootfs.make_directories(root, path, spec.ids.start if spec.ids is not None else 0)
    finally:
        os.close(root)
    own = [Mount(f"{target}{path}", path, "bind", ["rbind", "rprivate", "rw"]) for path in where]
    return msgspec.structs.replace(spec, mounts=[*spec.mounts, *own])


def _check_ids(spec: ContainerSpec, user: users.ResolvedUser) -> None:
    if spec.ids is None:
        return
    for what, number in (("user", user.uid), *(("group", gid) for gid in (user.gid, *user.additional_gids))):
        if number >= spec.ids.length:
            last = spec.ids.length - 1
            raise CreateContainerError(f"{what} {number} does not exist in the pod's user namespace (0 to {last})")


def _write_config(bundle: Path, config: dict[str, Any]) -> None:
    try:
        data = msgspec.json.encode(config)
    except UnicodeEncodeError as error:
        raise CreateContainerError(f"the container's settings are not valid UTF-8: {error}") from None
    fd = os.open(bundle / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        if file.write(data) != len(data):
            raise OSError(errno.EIO, "short write", str(bundle / "config.json"))
