"""Pods and figures for the tests of eviction."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.objects import Pod
from nodewright_agent.usage.model import ContainerUsage, FsUsage, NodeUsage, PodUsage, Processes, Usage

Gi, Mi = 1 << 30, 1 << 20


def pod(name: str, *, requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **spec: Any) -> Pod:
    resources = {"requests": requests or {}, "limits": limits or {}}
    annotations = spec.pop("annotations", {})
    body = {
        "metadata": {"name": name, "namespace": "ns", "uid": f"u-{name}", "annotations": annotations},
        "spec": {"containers": [{"name": "main", "resources": resources}], **spec},
    }
    return msgspec.convert(body, Pod)


def fs(used: int, inodes: int = 1) -> FsUsage:
    return FsUsage(
        time=1.0, available=10 * Gi, capacity=100 * Gi, inodes_free=500, inodes=1000, used=used, inodes_used=inodes
    )


def figures(name: str, memory: int = 0, disk: int = 0, processes: int = 1, inodes: int = 1) -> PodUsage:
    usage = Usage(memory_working_set_bytes=memory, processes=processes)
    container = ContainerUsage("main", usage, rootfs=fs(disk, inodes), logs=fs(0, 0))
    return PodUsage("ns", name, f"u-{name}", usage, [container], ephemeral=fs(disk, inodes))


def node(memory: int = 4 * Gi, available: int = 50 * Gi, inodes: int = 500, pids: int = 1000) -> NodeUsage:
    usage = Usage(memory_available_bytes=memory, memory_working_set_bytes=8 * Gi - memory)
    space = FsUsage(time=1.0, available=available, capacity=100 * Gi, inodes_free=inodes, inodes=1000)
    return NodeUsage(1.0, usage, [], fs=space, image_fs=space, processes=Processes(4000 - pids, 4000))
