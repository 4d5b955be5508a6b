"""The texts of the resize events: upstream's prefix, then the resources as JSON. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.objects import Container, Pod


def started(pod: Pod, generation: int) -> str:
    """Return the text of ResizeStarted."""
    return f"Pod resize started: {_summary(pod, generation)}"


def completed(pod: Pod, generation: int) -> str:
    """Return the text of ResizeCompleted."""
    return f"Pod resize completed: {_summary(pod, generation)}"


def failed(pod: Pod, generation: int, error: str) -> str:
    """Return the text of ResizeError."""
    return f"Pod resize error: {_summary(pod, generation, error)}"


def pending(pod: Pod, generation: int, reason: str, message: str) -> str:
    """Return the text of ResizeDeferred and ResizeInfeasible."""
    return f"Pod resize {reason}: {_summary(pod, generation, message)}"


def _summary(pod: Pod, generation: int, error: str = "") -> str:
    summary: dict[str, Any] = {}
    if pod.spec.resources is not None:
        summary["resources"] = msgspec.to_builtins(pod.spec.resources)
    if pod.spec.init_containers:
        summary["initContainers"] = [_one(container) for container in pod.spec.init_containers]
    summary["containers"] = [_one(container) for container in pod.spec.containers]
    summary["generation"] = generation
    if error:
        summary["error"] = error
    return msgspec.json.encode(summary, order=None).decode()


def _one(container: Container) -> dict[str, Any]:
    resources = container.resources
    amounts = {"limits": dict(sorted(resources.limits.items())), "requests": dict(sorted(resources.requests.items()))}
    return {"name": container.name, "resources": {name: one for name, one in amounts.items() if one}}
