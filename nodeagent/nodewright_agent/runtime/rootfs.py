"""What an image's files must look like before runc may prepare them as a root: no links out, no surprises.

runc works on the mounted root as root of the host; a planted link under a mount point has led it outside more than
once (CVE-2025-31133, CVE-2026-41579). The agent refuses such images instead of relying on the runtime's version.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from nodewright_agent.runtime.errors import CreateContainerError

_RESERVED = ("dev", "proc", "sys")
_MAX_LINKS = 40


def check_reserved(root_fd: int) -> None:
    """/dev, /proc and /sys must be directories of the image itself, or absent."""
    for name in _RESERVED:
        try:
            mode = os.lstat(name, dir_fd=root_fd).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            raise CreateContainerError(f"invalid image: /{name} is a symbolic link")
        if not stat.S_ISDIR(mode):
            raise CreateContainerError(f"invalid image: /{name} is not a directory")


def resolve(root_fd: int, path: str, what: str) -> str:
    """Where ``path`` leads inside the root, every link followed as a process with that root would.

    Components that do not exist stay as they are. Raises CreateContainerError where a link climbs above the root or
    leads into /proc, /sys or /dev from elsewhere. Nobody else writes to a root that is not running yet.
    """
    todo = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == ".":
            continue
        if part == "..":
            if not done:
                raise CreateContainerError(
                    f"invalid image: {what} {path!r} leads out of the image through a symbolic link"
                )
            done.pop()
            continue
        target = _link(root_fd, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise CreateContainerError(f"invalid image: {what} {path!r} has too many symbolic links")
        if target.startswith("/"):
            done = []
        todo = [piece for piece in target.split("/") if piece] + todo
    if links and done and done[0] in _RESERVED:
        raise CreateContainerError(f"invalid image: {what} {path!r} leads into /{done[0]} through a symbolic link")
    return "/" + "/".join(done)


def resolve_mounts(root_fd: int, destinations: Iterable[str]) -> dict[str, str]:
    """Each destination with the links of the image resolved, so that the runtime meets none."""
    return {path: resolve(root_fd, path, "mount path") for path in destinations}


def check_working_directory(root_fd: int, cwd: str) -> None:
    """The working directory must not be below /proc: ``/proc/self/fd/N`` is a way out (CVE-2024-21626)."""
    if resolve(root_fd, cwd, "working directory").split("/")[1] == "proc":
        raise CreateContainerError(f"working directory {cwd!r} is below /proc")


def make_directories(root_fd: int, path: str, owner: int) -> None:
    """Make what is missing of ``path``, which ``resolve`` has given, for user and group ``owner`` of the host.

    Raises CreateContainerError where something else is in the way, or the kernel's own file systems will be.
    """
    parts, done = path.strip("/").split("/"), ""
    if parts[0] in _RESERVED:
        raise CreateContainerError(f"invalid image: volume {path!r} is below /{parts[0]}")
    for part in parts:
        done = f"{done}/{part}" if done else part
        try:
            os.mkdir(done, 0o755, dir_fd=root_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(done, dir_fd=root_fd).st_mode):
                raise CreateContainerError(f"invalid image: volume {path!r}: /{done} is not a directory") from None
        else:
            os.chown(done, owner, owner, dir_fd=root_fd, follow_symlinks=False)


def _link(root_fd: int, path: str) -> str | None:
    try:
        return os.readlink(path, dir_fd=root_fd)
    except OSError:
        return None  # no link: a file, a directory, or nothing yet
