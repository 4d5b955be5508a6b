"""From volumeMounts to the mounts of a container; subPaths are bound without a way out of the volume."""

from __future__ import annotations

import errno
import functools
import logging
import os
import posixpath
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodewright.kube.api.volumes import Volume, VolumeMount
from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.env import expand
from nodewright_agent.pods.volumes.errors import MountError, VolumeError
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.plugin import SetUp
from nodewright_agent.pods.volumes.registry import PLUGINS
from nodewright_agent.runtime import syscalls
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.mounts import unmount
from nodewright_agent.runtime.spec import Mount

log = logging.getLogger(__name__)

_PROPAGATION = {None: "rprivate", "None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the Pod: its places, the host's namespace, its volumes as made, the runtime's abilities."""

    paths: PodPaths
    space: HostSpace
    made: Mapping[str, SetUp]
    recursive_read_only: bool = False


def mounts_for(
    pod: Pod,
    container: Container,
    volumes: Mapping[str, Path],
    environment: Mapping[str, str],
    known: Known,
) -> list[Mount]:
    """The mounts of a container, outer destinations first; raises MountError in upstream's words.

    Sources are paths of the host's mount namespace. subPaths are bound there too, since the kernel binds nothing of
    one namespace into another; the bind is below the state directory, and so comes back to the agent's.
    """
    specs = {volume.name: volume for volume in pod.spec.volumes}
    result = []
    for index, mount in enumerate(container.volume_mounts):
        made = known.made.get(mount.name) or _plain(volumes.get(mount.name))
        if made is None or made.device or mount.name not in specs:
            raise MountError(f'cannot find volume "{mount.name}" to mount into container "{container.name}"')
        source = made.path
        if made.host:
            known.space.call(functools.partial(_make_missing, source))
        sub = sub_path(mount, environment)
        if sub:
            source = _bound(known, container, index, made, sub, specs[mount.name])
        destination = posixpath.join("/", mount.mount_path)
        given = options(mount, specs[mount.name], made, recursive_read_only=known.recursive_read_only)
        result.append(Mount(str(source), destination, "bind", given, specs[mount.name].image is not None))
    # An outer mount that came later would hide an inner one.
    return sorted(result, key=lambda item: posixpath.normpath(item.destination).count("/"))


def _plain(path: Path | None) -> SetUp | None:
    return SetUp(path) if path is not None else None


def _make_missing(path: Path) -> None:
    """CRI runtimes make what a hostPath names and nobody has made, as a directory."""
    if not os.path.exists(path):
        os.makedirs(path, mode=0o755, exist_ok=True)


def _bound(known: Known, container: Container, index: int, made: SetUp, sub: str, volume: Volume) -> Path:
    """The subPath of a mount, bound to a place of its own. What went wrong with the host's files is only logged."""
    try:
        target = known.paths.subpath(volume.name, container.name, index)
        return known.space.call(functools.partial(bind_sub_path, made.path, sub, target))
    except (OSError, VolumeError) as error:
        log.warning("a subPath cannot be prepared",
                    extra={"volume": volume.name, "container": container.name, "error": str(error)})  # fmt: skip
        if volume.image is not None:
            text = f"failed to mount image volume {volume.name}: subPath {sub}: no such file or directory"
            raise MountError(text, "CreateContainerError") from None
        text = f'failed to prepare subPath for volumeMount "{volume.name}" of container "{container.name}"'
        raise MountError(text) from None


def options(
    mount: VolumeMount, volume: Volume, made: SetUp | None = None, *, recursive_read_only: bool = False
) -> list[str]:
    """OCI mount options. Pure; raises MountError for combinations that have no meaning."""
    plugin = PLUGINS.get(volume.source)
    read_only = mount.read_only or (plugin is not None and plugin.read_only) or (made is not None and made.read_only)
    if mount.mount_propagation not in _PROPAGATION:
        raise MountError(f'invalid MountPropagation mode: "{mount.mount_propagation}"')
    more = [option for option in made.options if option not in ("ro", "rw")] if made is not None else []
    read_only = read_only or (made is not None and "ro" in made.options)
    result = ["rbind", "ro" if read_only else "rw", _PROPAGATION[mount.mount_propagation], *more]
    try:
        rro = recursive(mount, supported=recursive_read_only)
    except MountError as error:
        raise MountError(f"failed to resolve recursive read-only mode: {error}") from None
    return [*result, "rro"] if rro else result


def recursive(mount: VolumeMount, *, supported: bool) -> bool:
    """Whether the mounts below a mount are to be read-only, too. Pure; raises MountError in upstream's words."""
    mode = mount.recursive_read_only or "Disabled"
    if mode == "Disabled":
        return False
    said = f'volume "{mount.name}" requested recursive read-only mode, but it is'
    if not mount.read_only:
        raise MountError(f"{said} not read-only")
    if mount.mount_propagation not in (None, "None"):
        raise MountError(f'{said} not compatible with propagation "{mount.mount_propagation}"')
    if mode == "IfPossible":
        return supported
    if mode != "Enabled":
        raise MountError(f'unknown recursive read-only mode "{mode}"')
    if not supported:
        raise MountError(f"{said} not supported by the runtime")
    return True


def sub_path(mount: VolumeMount, environment: Mapping[str, str]) -> str:
    """The subPath, or the expanded subPathExpr; checked. Pure; raises MountError."""
    text = mount.sub_path
    if mount.sub_path_expr:
        missing: list[str] = []

        def value(name: str) -> str | None:
            if name not in environment:
                missing.append(name)
            return environment.get(name)

        text = expand(mount.sub_path_expr, value)
        if missing:
            raise MountError(f'missing value for "{missing[0]}"')
        if not text:
            raise MountError(f"subPathExpr `{mount.sub_path_expr}` expands to nothing")
    if text.startswith("/"):
        raise MountError(f"error SubPath `{text}` must not be an absolute path")
    if ".." in text.split("/") or "\0" in text:
        raise MountError(f"unable to provision SubPath `{text}`: must not contain '..'")
    return "" if posixpath.normpath(text) == "." else text


def bind_sub_path(volume: Path, sub: str, target: Path) -> Path:
    """Bind `volume`/`sub`, made as a directory if it is missing, on `target`, and return that.

    The file that was opened is the file that is mounted, through its descriptor: whoever swaps directories for symlinks
    meanwhile gains nothing (CVE-2017-1002101, CVE-2021-25741).
    """
    base = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = _open_beneath(base, sub)
        try:
            _bind(found, target)
        finally:
            os.close(found)
    finally:
        os.close(base)
    return target


def _open_beneath(base: int, sub: str) -> int:
    try:
        return syscalls.openat2(base, sub, os.O_PATH, _RESOLVE)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise VolumeError(f'subpath "{sub}" not within volume path') from None
        if error.errno != errno.ENOENT:
            raise
    return _make_beneath(base, [part for part in sub.split("/") if part not in ("", ".")])


def _make_beneath(base: int, parts: list[str]) -> int:
    """Make missing directories one by one, each with the mode of the volume (upstream's SafeMakeDir)."""
    mode = stat.S_IMODE(os.fstat(base).st_mode)
    here = os.dup(base)
    try:
        for i in range(len(parts)):
            try:
                # from the base each time: the kernel checks the whole way, links within the volume included
                following = syscalls.openat2(base, "/".join(parts[: i + 1]), os.O_PATH | os.O_DIRECTORY, _RESOLVE)
            except FileNotFoundError:
                os.mkdir(parts[i], mode, dir_fd=here)
                following = os.open(parts[i], _DIRECTORY, dir_fd=here)
                os.chmod(f"/proc/self/fd/{following}", mode)  # whatever the umask; O_PATH has no fchmod
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise VolumeError(f'subpath "{"/".join(parts)}" not within volume path') from None
                raise
            os.close(here)
            here = following
    except BaseException:
        os.close(here)
        raise
    return here


def _bind(found: int, target: Path) -> None:
    info = os.fstat(found)
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if target.exists():
        there = target.stat()
        if (there.st_dev, there.st_ino) == (info.st_dev, info.st_ino):
            return  # bound already, for an earlier run of the container
        unmount(str(target))
    if target.exists() and target.is_dir() != stat.S_ISDIR(info.st_mode):
        target.rmdir() if target.is_dir() else target.unlink()
    if stat.S_ISDIR(info.st_mode):
        target.mkdir(mode=0o750, exist_ok=True)
    else:
        target.touch(mode=0o640)
    syscalls.mount(f"/proc/self/fd/{found}", str(target), "", syscalls.MS_BIND)
