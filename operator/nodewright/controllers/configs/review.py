"""What a schema cannot see in one object: whether it agrees with the others of its kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

Json = dict[str, Any]


class Verdict(msgspec.Struct, frozen=True):
    """The Accepted condition that an object should have."""

    accepted: bool
    reason: str
    message: str


def node_configs(objects: Sequence[Json]) -> dict[str, Verdict]:
    """NodeAgentConfigs by name. The schema leaves nothing to refuse, but nobody applies them yet, and that is said."""
    text = "agents of this version are configured by their file only and do not read this object"
    return {obj["metadata"]["name"]: Verdict(False, "NotApplied", text) for obj in objects}


def status_patch(obj: Json, verdict: Verdict, now: str) -> Json | None:
    """A merge patch for the status subresource, or None when the object says it already."""
    meta = obj["metadata"]
    old = obj.get("status") or {}
    conditions = old.get("conditions") or []
    before = next((c for c in conditions if c.get("type") == "Accepted"), None)
    value = "True" if verdict.accepted else "False"
    changed = before is None or before.get("status") != value
    condition = {
        "type": "Accepted",
        "status": value,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": meta["generation"],
        "lastTransitionTime": now if changed or before is None else before.get("lastTransitionTime"),
    }
    if before == condition and old.get("observedGeneration") == meta["generation"]:
        return None
    others = [c for c in conditions if c.get("type") != "Accepted"]
    # Merge patches replace lists whole; the resourceVersion keeps what others wrote meanwhile from getting lost.
    return {
        "metadata": {"resourceVersion": meta["resourceVersion"]},
        "status": {"observedGeneration": meta["generation"], "conditions": [*others, condition]},
    }
