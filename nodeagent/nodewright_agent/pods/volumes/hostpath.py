"""hostPath: a path of the host, checked or made as its type says."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from nodewright.kube.api.volumes import HostPathVolumeSource
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.pods.volumes.plugin import Request, SetUp
from nodewright_agent.runtime.hostspace import HostSpace

_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class HostPath:
    """A path of the host's mount namespace, looked at there; nothing is ever removed.

    What is mounted is the path itself: the runtime, which lives in that namespace, follows it once more.
    """

    read_only = False

    async def set_up(self, request: Request) -> SetUp:
        """Check the type; symlinks in the path are followed, as upstream does."""
        source = request.volume.host_path
        assert source is not None
        await prepare(source, request.host.space)
        return SetUp(Path(source.path), host=True)


async def prepare(source: HostPathVolumeSource, space: HostSpace) -> None:
    """Check, or make, a path as its source says; raises VolumeError."""
    path, kind = source.path, source.type or ""
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise VolumeError(f"invalid HostPath `{path}`: must be absolute and must not contain '..'")
    await asyncio.to_thread(space.call, lambda: check(path, kind))


def check(path: str, kind: str) -> None:
    """Check, or make, a path by hostPath type; raises VolumeError in upstream's words.

    To be called in the host's mount namespace (``HostSpace.call``), where links lead where the host has them lead.
    """
    if kind == "":
        return
    if kind not in _CHECKS:
        raise VolumeError(f"{kind} is an invalid volume type")
    if kind == "DirectoryOrCreate" and not os.path.lexists(path):
        os.makedirs(path, mode=0o755, exist_ok=True)
    if kind == "FileOrCreate" and not os.path.lexists(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    test, words = _CHECKS[kind]
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = 0
    if not test(mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {words}")
