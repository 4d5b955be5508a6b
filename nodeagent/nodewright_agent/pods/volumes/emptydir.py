"""emptyDir: a directory, or a tmpfs, that lives as long as the Pod."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from nodewright.kube import quantity
from nodewright.kube.api.volumes import Volume
from nodewright.kube.objects import Pod
from nodewright_agent.pods.volumes import ownership
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.pods.volumes.objects import Key, Value
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.plugin import Host, SetUp, VolumeContext
from nodewright_agent.runtime import syscalls

_MODE = 0o777


class EmptyDir:
    """emptyDir with medium "" or Memory; huge pages are refused."""

    read_only = False

    async def set_up(
        self,
        volume: Volume,
        pod: Pod,
        paths: PodPaths,
        host: Host,
        context: VolumeContext,
        used: dict[Key, Value | None],
    ) -> SetUp:
        """Make the directory once; what is in it survives restarts of containers and of the agent."""
        source = volume.empty_dir
        assert source is not None
        if source.medium not in ("", "Memory"):
            raise VolumeError(f'storage medium "{source.medium}" is not supported yet')
        path = paths.volume("empty-dir", volume.name)
        size = memory_limit(pod, source.size_limit, context.allocatable) if source.medium == "Memory" else None
        await asyncio.to_thread(make, path, memory=source.medium == "Memory", size=size, group=ownership.fs_group(pod))
        return SetUp(path)


def make(path: Path, *, memory: bool, size: int | None = None, group: int | None = None, mode: int = _MODE) -> None:
    """Make a directory, with a tmpfs on it if `memory`, and hand it to the group. An existing one is left as it is."""
    new = not path.is_dir()
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    if memory and not is_mounted(path):
        new = True
        options = f"mode={mode:o}" + (f",size={size}" if size is not None else "")
        syscalls.mount("tmpfs", str(path), "tmpfs", syscalls.MS_NODEV | syscalls.MS_NOSUID, options)
    if new:
        path.chmod(mode)  # whatever the umask
        if group is not None:
            ownership.apply_tree(str(path), group, read_only=False)


def is_mounted(path: Path) -> bool:
    """Whether another file system is mounted on the directory."""
    return os.lstat(path).st_dev != os.lstat(path.parent).st_dev


def memory_limit(pod: Pod, size_limit: str | None, allocatable: Mapping[str, str]) -> int | None:
    """Bytes of a memory-backed volume (calculateEmptyDirMemorySize). Pure.

    The least of the node's memory, the Pod's memory limit if all containers have one, and sizeLimit.
    """
    bounds = []
    if "memory" in allocatable:
        bounds.append(quantity.value(allocatable["memory"]))
    limits = [container.resources.limits.get("memory") for container in pod.spec.containers]
    if limits and all(limit is not None for limit in limits):
        bounds.append(sum(quantity.value(limit) for limit in limits if limit is not None))
    if size_limit is not None and quantity.value(size_limit) > 0:
        bounds.append(quantity.value(size_limit))
    return min(bounds, default=None)
