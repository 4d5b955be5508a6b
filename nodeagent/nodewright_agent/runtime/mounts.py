"""Mounts of the agent: overlay root file systems, private run directories, unmounting a whole tree."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from nodewright_agent.runtime import mountinfo, syscalls

PAGE = 4096
"""mount(2) copies one page of options and cuts the rest off silently; the error is then a misleading ELOOP."""
MAX_LOWERS = 500
"""What the kernel's overlayfs accepts (OVL_MAX_STACK)."""
_SPECIAL = frozenset(":,\\")


class TooManyLayers(OSError):
    """The image has more layers than one overlay mount can take."""


def mount_overlay(target: str, lowers: Sequence[Path], upper: str, work: str) -> None:
    """Mount ``lowers`` (top first) with a writable ``upper`` on ``target``.

    Long option strings, and paths with characters that the option syntax gives a meaning, go through descriptors:
    ``/proc/self/fd/N`` is 16 characters whatever the path, which takes about 220 layers.
    """
    if not lowers:
        raise OSError(errno.EINVAL, "overlay: the image has no layers", target)
    _mount_overlay(target, lowers, [upper, work], 0)


def mount_read_only_overlay(target: str, lowers: Sequence[Path]) -> None:
    """Mount ``lowers`` (top first, at least two) on ``target`` for reading only: no devices, no set-id bits."""
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    _mount_overlay(target, lowers, [], flags)


def _mount_overlay(target: str, lowers: Sequence[Path], writable: Sequence[str], flags: int) -> None:
    """``writable``: upper and work directory, or nothing."""
    if len(lowers) > MAX_LOWERS:
        raise _too_many(lowers, target)
    paths = [*map(str, lowers), *writable]
    options = _overlay_options(paths, len(lowers))
    if len(os.fsencode(options)) < PAGE - 1 and not any(_SPECIAL & set(path) for path in paths):
        syscalls.mount("overlay", target, "overlay", flags, options)
        return
    descriptors: list[int] = []
    try:
        for path in paths:
            descriptors.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        options = _overlay_options([f"/proc/self/fd/{fd}" for fd in descriptors], len(lowers))
        if len(options) >= PAGE - 1:
            raise _too_many(lowers, target)
        syscalls.mount("overlay", target, "overlay", flags, options)
    finally:
        for fd in descriptors:
            os.close(fd)


def _too_many(lowers: Sequence[Path], target: str) -> TooManyLayers:
    return TooManyLayers(errno.E2BIG, f"overlay: {len(lowers)} layers are more than one mount takes", target)


def _overlay_options(paths: Sequence[str], lowers: int) -> str:
    """The first ``lowers`` of the paths are layers; then come, perhaps, upper and work directory."""
    options = f"lowerdir={':'.join(paths[:lowers])}"
    return options if len(paths) == lowers else f"{options},upperdir={paths[-2]},workdir={paths[-1]}"


def bind(source: str, target: str) -> None:
    """Bind mount a file or directory (not recursively)."""
    syscalls.mount(source, target, "", syscalls.MS_BIND)


def ensure_private(directory: str) -> None:
    """Make ``directory`` a mount of its own with private propagation, once.

    Mounts below it then reach no other namespace: a copy of a pinned network namespace in somebody's
    mount namespace would keep it alive after we removed ours.
    """
    entries = mountinfo.at(directory)
    if not entries:
        bind(directory, directory)
    if not entries or entries[-1].propagation:
        syscalls.mount("", directory, "", syscalls.MS_PRIVATE)


def ensure_shared(directory: str | Path) -> None:
    """Have what is mounted below ``directory`` reach those who have bound it; it becomes a mount of its own if need be.

    On hosts whose mounts are shared from the root on, as systemd makes them, nothing is to be done.
    """
    entry = mountinfo.containing(mountinfo.read(), directory)
    if entry.peer_group is not None:
        return
    if entry.mount_point != str(directory):
        bind(str(directory), str(directory))
    syscalls.mount("", str(directory), "", syscalls.MS_SHARED)


def unmount_below(directory: str | Path) -> list[str]:
    """Detach every mount at or below ``directory``; returns what was unmounted. Idempotent."""
    done = []
    for point in mountinfo.below(mountinfo.read(), directory):
        if unmount(point):
            done.append(point)
    return done


def unmount(point: str) -> bool:
    """Detach one mount; False when nothing was mounted there."""
    try:
        syscalls.umount(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True
