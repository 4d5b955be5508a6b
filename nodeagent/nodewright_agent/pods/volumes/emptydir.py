"""emptyDir: a directory, or a tmpfs, that lives as long as the Pod."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from nodewright.kube import quantity
from nodewright.kube.objects import Pod
from nodewright_agent.pods.volumes import ownership
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.pods.volumes.plugin import Request, SetUp
from nodewright_agent.runtime import mounts, syscalls

_MODE = 0o777
_TMPFS_MODE = 0o1777  # upstream leaves it to the kernel, whose default is this
_HUGE, _RESOURCE = "HugePages", "hugepages-"


class EmptyDir:
    """emptyDir with medium "", Memory, HugePages or HugePages-SIZE."""

    read_only = False

    async def set_up(self, request: Request) -> SetUp:
        """Make the directory once; what is in it survives restarts of containers and of the agent."""
        source, pod = request.volume.empty_dir, request.pod
        assert source is not None
        path, group = request.paths.volume("empty-dir", request.volume.name), ownership.fs_group(pod)
        if source.medium == "Memory":
            size = memory_limit(pod, source.size_limit, request.context.allocatable)
            await asyncio.to_thread(make, path, memory=True, size=size, group=group)
        elif source.medium == "":
            await asyncio.to_thread(make, path, memory=False, group=group)
        elif source.medium.startswith(_HUGE):
            await asyncio.to_thread(make, path, memory=True, group=group, pages=page_size(pod, source.medium))
        else:
            raise VolumeError(f'unknown storage medium "{source.medium}"')
        if propagates(pod, request.volume.name):
            await asyncio.to_thread(mounts.ensure_shared, path)
        return SetUp(path)


def propagates(pod: Pod, name: str) -> bool:
    """Whether some container hands on, or wants to see, what is mounted in a volume. Pure."""
    containers = (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers)
    return any(
        mount.name == name and mount.mount_propagation not in (None, "None")
        for container in containers
        for mount in container.volume_mounts
    )


def page_size(pod: Pod, medium: str) -> int:
    """Bytes of the huge pages of a volume: what the medium says, or the one size that containers ask for. Pure."""
    sizes = {
        name.removeprefix(_RESOURCE)
        for container in (*pod.spec.init_containers, *pod.spec.containers)
        for name in (*container.resources.requests, *container.resources.limits)
        if name.startswith(_RESOURCE)
    }
    named = medium.removeprefix(_HUGE).removeprefix("-")
    if not sizes or (named and named not in sizes):
        raise VolumeError(f'storage medium "{medium}" requested, but there is no resource request for such huge pages')
    if not named and len(sizes) > 1:
        raise VolumeError(f'storage medium "{medium}" needs one size of huge pages; containers request {sorted(sizes)}')
    return quantity.value(named or sizes.pop())


def make(
    path: Path,
    *,
    memory: bool,
    size: int | None = None,
    group: int | None = None,
    mode: int | None = None,
    pages: int | None = None,
) -> None:
    """Make a directory, with a tmpfs on it if `memory`, and hand it to the group. An existing one is left as it is.

    With `pages`, bytes of a huge page, it is a hugetlbfs instead. `mode`: rwx for all, and sticky on a tmpfs.
    """
    if mode is None:
        mode = _TMPFS_MODE if memory and pages is None else _MODE
    new = not path.is_dir()
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    if memory and not is_mounted(path):
        new = True
        flags = syscalls.MS_NODEV | syscalls.MS_NOSUID
        options = f"mode={mode:o}" + (f",size={size}" if size is not None else "")
        if pages is not None:
            syscalls.mount("nodev", str(path), "hugetlbfs", flags, f"mode={mode:o},pagesize={pages}")
        else:
            syscalls.mount("tmpfs", str(path), "tmpfs", flags, options)
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
