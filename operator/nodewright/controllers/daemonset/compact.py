"""Keeping what is kept of pods small: equal parts of different pods are one object, and what nobody asks is dropped.

The pods of a DaemonSet differ in little: name, UID, node, version, times. Labels and owners are the same for thousands.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar, cast

from nodewright.kube.objects import Affinity, OwnerReference

T = TypeVar("T")

_LIMIT = 2048
# Equal parts by their content. Emptied when full: parts that are in use then stay, they are only not found any more.
_parts: dict[Hashable, Any] = {}


def shared(content: Hashable, part: T) -> T:
    """The first part that was given with this content; parts may not be changed afterwards."""
    if len(_parts) >= _LIMIT:
        _parts.clear()
    return cast("T", _parts.setdefault(content, part))


def labels(given: dict[str, str]) -> dict[str, str]:
    """The labels, shared with equal ones."""
    return shared(("labels", *given.items()), given)


def owners(given: list[OwnerReference]) -> list[OwnerReference]:
    """The owner references, shared with equal ones."""
    content = [(r.uid, r.name, r.kind, r.api_version, r.controller, r.block_owner_deletion) for r in given]
    return shared(("owners", *content), given)


def pinned_to(affinity: Affinity | None) -> str:
    """The node that required affinity names, as it does in daemon pods; "" where it names none."""
    node_affinity = affinity.node_affinity if affinity else None
    required = node_affinity.required_during_scheduling_ignored_during_execution if node_affinity else None
    for term in required.node_selector_terms if required else ():
        for field in term.match_fields:
            if field.key == "metadata.name" and field.operator == "In" and len(field.values) == 1:
                return field.values[0]
    return ""
