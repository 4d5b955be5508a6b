"""What an evicted Pod is told, word for word as upstream says it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nodewright.kube import quantity
from nodewright.kube.objects import Container, Pod
from nodewright_agent.eviction.signals import STORAGE
from nodewright_agent.usage.model import ContainerUsage, PodUsage

EVICTED = "Evicted"
"""Reason of the Pod's status and of the event."""


def node_low(resource: str, pod: Pod, usage: PodUsage | None, shortage: tuple[str, str] | None) -> str:
    """Why a Pod was chosen for a resource of the node; ``shortage`` is the threshold and what is left."""
    text = f"The node was low on resource: {resource}. "
    if shortage is not None:
        text += f"Threshold quantity: {shortage[0]}, available: {shortage[1]}. "
    if usage is None:
        return text
    return text + _pod(resource, pod, usage) + "".join(_containers(resource, pod, usage))


def node_condition(conditions: Sequence[str]) -> str:
    """Why a Pod is not admitted."""
    return f"The node had condition: [{' '.join(conditions)}]. "


def empty_dir(volume: str, limit: str) -> str:
    """An emptyDir has grown past its sizeLimit."""
    return f'Usage of EmptyDir volume "{volume}" exceeds the limit "{limit}". '


def pod_storage(limit: str) -> str:
    """A Pod uses more local storage than its containers together may."""
    return f"Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "


def container_storage(container: str, limit: str) -> str:
    """A container uses more local storage than it may."""
    return f'Container {container} exceeded its local ephemeral storage limit "{limit}". '


def canonical(text: str) -> str:
    """A quantity as upstream prints it after reading it."""
    number = quantity.parse(text)
    return quantity.format_binary(quantity.value(text)) if text.endswith("i") else quantity.format_decimal(number)


def _pod(resource: str, pod: Pod, usage: PodUsage) -> str:
    """Pods with requests of their own are told about them, for memory."""
    request = pod.spec.resources.requests.get(resource) if pod.spec.resources is not None else None
    used = usage.usage.memory_working_set_bytes
    if resource != "memory" or request is None or used is None:
        return ""
    return _consumes(f"Pod {pod.metadata.name}", used, request, resource)


def _containers(resource: str, pod: Pod, usage: PodUsage) -> list[str]:
    by_name: dict[str, Container] = {one.name: one for one in (*pod.spec.init_containers, *pod.spec.containers)}
    texts = []
    for one in usage.containers:
        container = by_name.get(one.name)
        used = _used(resource, one)
        if container is None or used is None:
            continue
        request = container.resources.requests.get(resource, "0")
        if used > quantity.value(request):
            texts.append(_consumes(f"Container {one.name}", used, request, resource))
    return texts


def _used(resource: str, usage: ContainerUsage) -> int | None:
    if resource == "memory":
        return usage.usage.memory_working_set_bytes
    if resource != STORAGE or usage.rootfs is None or usage.logs is None:
        return None
    if usage.rootfs.used is None or usage.logs.used is None:
        return None
    return usage.rootfs.used + usage.logs.used


def _consumes(who: str, used: int, request: str, resource: str) -> str:
    shown = quantity.format_binary(used)
    return f"{who} was using {shown}, request is {canonical(request)}, has larger consumption of {resource}. "
