"""Idmapped mounts: files that belong to 0 on disk belong to a pod's root where the pod sees them, and to nobody else.

The agent makes them itself (Linux 5.12, overlay layers 5.19, tmpfs 6.3): runtimes before runc 1.2 do not know them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nodewright_agent.runtime import mounts, syscalls


def bind(source: str, target: Path, user_ns: str, *, recursive: bool = False) -> None:
    """Mount ``source`` on ``target`` (made as a directory or file, like the source), shown through ``user_ns``.

    ``recursive`` takes what is mounted below along, with its ids as they are, as OCI runtimes do. Raises OSError, with
    EINVAL where the file system has no idmapped mounts.
    """
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if recursive else 0)
    tree = syscalls.open_tree(source, flags)
    try:
        space = os.open(user_ns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.set_idmap(tree, space)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: file system without idmapped mounts?", source) from error
        finally:
            os.close(space)
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            target.mkdir(mode=0o700, exist_ok=True)
        else:
            target.touch(mode=0o600)
        syscalls.move_mount(tree, str(target))
    finally:
        os.close(tree)


def mount_overlay(target: str, lowers: Sequence[Path], upper: str, work: str, user_ns: str, scratch: Path) -> None:
    """``mounts.mount_overlay`` with the layers seen through ``user_ns``; ``upper`` has the host's ids and is not.

    The layers' own mounts are in ``scratch`` (made) for as long as this takes: overlayfs keeps copies.
    """
    with _shown(lowers, user_ns, scratch) as layers:
        mounts.mount_overlay(target, layers, upper, work)


def mount_read_only_overlay(target: str, lowers: Sequence[Path], user_ns: str, scratch: Path) -> None:
    """``mounts.mount_read_only_overlay`` with the layers seen through ``user_ns``; ``scratch`` as above."""
    with _shown(lowers, user_ns, scratch) as layers:
        mounts.mount_read_only_overlay(target, layers)


@contextmanager
def _shown(lowers: Sequence[Path], user_ns: str, scratch: Path) -> Iterator[list[Path]]:
    where = scratch / "l"  # with the layers' own names: images.usage finds in mountinfo what is in use
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounts.unmount_below(scratch)  # of an agent that was killed here
    try:
        layers = [where / lower.name for lower in lowers]
        for lower, layer in zip(lowers, layers, strict=True):
            bind(str(lower), layer, user_ns)
        yield layers
    finally:
        mounts.unmount_below(scratch)
