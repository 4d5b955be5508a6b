"""Which Pod goes first: upstream's order for each resource. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nodewright.kube import quantity
from nodewright.kube.objects import Pod
from nodewright_agent.eviction.signals import (
    ALLOCATABLE,
    IMAGE_FS,
    IMAGE_INODES,
    MEMORY,
    NODE_FS,
    NODE_INODES,
    PIDS,
    STORAGE,
)
from nodewright_agent.pods import resources
from nodewright_agent.usage.model import FsUsage, PodUsage

Figures = Mapping[str, PodUsage]
"""Usage by Pod UID."""
Key = Callable[[Pod], tuple[int | bool, ...]]


def critical(pod: Pod) -> bool:
    """Whether the Pod may never be evicted, and is admitted under pressure: static, or of a system priority."""
    return resources.is_critical(pod)


def priority(pod: Pod) -> int:
    """The Pod's priority, 0 where none is set."""
    return pod.spec.priority or 0


def rank(signal: str, pods: Iterable[Pod], figures: Figures, *, split: bool) -> list[Pod]:
    """Return the Pods in the order in which they have to go. Those without figures go first.

    ``split``: images have a file system of their own; then Pods use nothing of it.
    """
    keys: dict[str, Key] = {
        MEMORY: _memory(figures),
        ALLOCATABLE: _memory(figures),
        PIDS: _processes(figures),
        NODE_FS: _disk(figures, inodes=False, images_only=False),
        NODE_INODES: _disk(figures, inodes=True, images_only=False),
        IMAGE_FS: _disk(figures, inodes=False, images_only=split),
        IMAGE_INODES: _disk(figures, inodes=True, images_only=split),
    }
    return sorted(pods, key=keys[signal])


def storage(amounts: Mapping[str, str]) -> int | None:
    """Local ephemeral storage in bytes; None where nothing is said."""
    return quantity.value(amounts[STORAGE]) if STORAGE in amounts else None


def local_volumes(pod: Pod) -> list[str]:
    """Volumes that use the node's own disk."""
    return [
        volume.name
        for volume in pod.spec.volumes
        if volume.host_path is not None
        or volume.config_map is not None
        or (volume.empty_dir is not None and volume.empty_dir.medium == "")
    ]


def disk_usage(pod: Pod, usage: PodUsage) -> tuple[int, int]:
    """Bytes and inodes of writable layers, logs and local volumes."""
    parts: list[FsUsage | None] = []
    for one in usage.containers:
        parts += [one.rootfs, one.logs]
    names = set(local_volumes(pod))
    parts += [volume.fs for volume in usage.volumes if volume.name in names]
    known = [part for part in parts if part is not None]
    return sum(part.used or 0 for part in known), sum(part.inodes_used or 0 for part in known)


def _memory(figures: Figures) -> Key:
    def key(pod: Pod) -> tuple[int | bool, ...]:
        usage = figures.get(pod.metadata.uid)
        if usage is None:
            return (False, False, priority(pod), 0)
        used = usage.usage.memory_working_set_bytes or 0
        over = used - resources.pod_request(pod, resources.memory)
        return (True, over <= 0, priority(pod), -over)

    return key


def _processes(figures: Figures) -> Key:
    def key(pod: Pod) -> tuple[int | bool, ...]:
        usage = figures.get(pod.metadata.uid)
        if usage is None:
            return (priority(pod), False, 0)
        return (priority(pod), True, -(usage.usage.processes or 0))

    return key


def _disk(figures: Figures, *, inodes: bool, images_only: bool) -> Key:
    def key(pod: Pod) -> tuple[int | bool, ...]:
        usage = figures.get(pod.metadata.uid)
        if usage is None:
            return (False, False, priority(pod), 0)
        used = (0, 0) if images_only else disk_usage(pod, usage)
        wanted = resources.pod_request(pod, storage)
        amount = used[1] if inodes else used[0]
        exceeds = amount > (0 if inodes else wanted)
        # Inodes less a request in bytes: upstream's arithmetic, and its order.
        return (True, not exceeds, priority(pod), wanted - amount)

    return key
