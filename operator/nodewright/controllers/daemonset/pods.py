"""What is asked about pods again and again: age order, readiness, availability, revision. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodewright.controllers.daemonset.model import GENERATION_LABEL, HASH_LABEL, Pod

PodsByNode = dict[str, list[Pod]]


def by_age(pod: Pod) -> tuple[bool, str, str]:
    """Sort key: scheduled pods first, then the oldest, then by name. (RFC 3339 in UTC sorts as text.)"""
    return (not pod.spec.node_name, pod.metadata.creation_timestamp or "", pod.metadata.name)


def group(pods: Iterable[Pod]) -> PodsByNode:
    """Pods by target node, the oldest first.

    Pods that have ended and are being deleted (something holds a finalizer) are left out: their replacement must not
    wait for them.
    """
    nodes: PodsByNode = {}
    for pod in pods:
        if pod.terminal and pod.deleting:
            continue
        node = pod.target_node
        if node is not None:
            nodes.setdefault(node, []).append(pod)
    for found in nodes.values():
        found.sort(key=by_age)
    return nodes


def ready_since(pod: Pod) -> str | None:
    """When the pod became ready; None while it is not. "" where it is ready and the time is unknown."""
    for condition in pod.status.conditions:
        if condition.type == "Ready":
            return (condition.last_transition_time or "") if condition.status == "True" else None
    return None


def is_ready(pod: Pod) -> bool:
    """Whether the Ready condition is True."""
    return ready_since(pod) is not None


def has_hash(pod: Pod, hash_value: str, template_generation: str | None = None) -> bool:
    """Whether the pod was made from a revision, by its hash or its template generation."""
    labels: Mapping[str, str] = pod.metadata.labels
    if hash_value and labels.get(HASH_LABEL) == hash_value:
        return True
    return template_generation is not None and labels.get(GENERATION_LABEL) == template_generation
