"""References to pods and their containers, as events carry them."""

from __future__ import annotations

from nodewright.kube.objects import ObjectReference, Pod
from nodewright_agent.pods.model import display_name as display

_FIELDS = (
    ("spec.initContainers", "init_containers"),
    ("spec.containers", "containers"),
    ("spec.ephemeralContainers", "ephemeral_containers"),
)


def reference(pod: Pod, container: str = "") -> ObjectReference:
    """Return the reference; with a container, its field path is ``spec.containers{name}``, as kubelet writes it."""
    meta = pod.metadata
    return ObjectReference(
        kind="Pod",
        api_version="v1",
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        field_path=_field_path(pod, container),
    )


def _field_path(pod: Pod, container: str) -> str:
    for path, attribute in _FIELDS:
        if any(one.name == container for one in getattr(pod.spec, attribute)):
            return f"{path}{{{container}}}"
    return ""


__all__ = ["display", "reference"]
