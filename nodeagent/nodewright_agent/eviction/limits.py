"""Pods that use more local storage than they may: emptyDir sizeLimit, and limits of ephemeral-storage. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nodewright.kube import quantity
from nodewright.kube.objects import Pod
from nodewright_agent.eviction import messages
from nodewright_agent.eviction.ranking import storage
from nodewright_agent.eviction.signals import STORAGE
from nodewright_agent.pods.model import is_sidecar
from nodewright_agent.usage.model import PodUsage

EMPTY_DIR, POD, CONTAINER = "emptydirfs.limit", "ephemeralpodfs.limit", "ephemeralcontainerfs.limit"
"""What the metric of evictions calls these."""


class Excess(NamedTuple):
    """Which limit is exceeded, and what the Pod is told."""

    signal: str
    message: str


def has_limits(pod: Pod) -> bool:
    """Whether the Pod's disk usage has to be counted at all while the node is well."""
    if any(volume.empty_dir is not None and volume.empty_dir.size_limit for volume in pod.spec.volumes):
        return True
    return _pod_limit(pod) is not None or any(storage(one.resources.limits) for one in pod.spec.containers)


def excess(pod: Pod, usage: PodUsage) -> Excess | None:
    """The first limit that the Pod exceeds: of a volume, of the Pod, of a container."""
    return _volume(pod, usage) or _pod(pod, usage) or _container(pod, usage)


def _volume(pod: Pod, usage: PodUsage) -> Excess | None:
    used = {volume.name: volume.fs.used for volume in usage.volumes}
    for volume in pod.spec.volumes:
        if volume.empty_dir is None or not volume.empty_dir.size_limit:
            continue
        limit, size = volume.empty_dir.size_limit, used.get(volume.name)
        if size is not None and 0 < quantity.value(limit) < size:
            return Excess(EMPTY_DIR, messages.empty_dir(volume.name, messages.canonical(limit)))
    return None


def _pod(pod: Pod, usage: PodUsage) -> Excess | None:
    limit = _pod_limit(pod)
    used = usage.ephemeral.used if usage.ephemeral is not None else None
    if limit is None or used is None or used <= limit[0]:
        return None
    return Excess(POD, messages.pod_storage(limit[1]))


def _container(pod: Pod, usage: PodUsage) -> Excess | None:
    limits = {one.name: one.resources.limits.get(STORAGE) for one in pod.spec.containers}
    for one in usage.containers:
        limit = limits.get(one.name)
        used = sum(part.used or 0 for part in (one.rootfs, one.logs) if part is not None)
        if limit and 0 < quantity.value(limit) < used:
            return Excess(CONTAINER, messages.container_storage(one.name, messages.canonical(limit)))
    return None


def _pod_limit(pod: Pod) -> tuple[int, str] | None:
    """The sum of the limits of the containers that have one, and how it is printed; upstream's PodLimits."""
    lasting = [*pod.spec.containers, *(one for one in pod.spec.init_containers if is_sidecar(one))]
    texts = [one.resources.limits[STORAGE] for one in lasting if STORAGE in one.resources.limits]
    short = [
        one.resources.limits[STORAGE]
        for one in pod.spec.init_containers
        if not is_sidecar(one) and STORAGE in one.resources.limits
    ]
    if not texts and not short:
        return None
    total = max([_total(texts), *(quantity.value(text) for text in short)])
    binary = any(text.endswith("i") for text in [*texts, *short][:1])
    return total, quantity.format_binary(total) if binary else quantity.format_decimal(total)


def _total(texts: Iterable[str]) -> int:
    return sum(quantity.value(text) for text in texts)
