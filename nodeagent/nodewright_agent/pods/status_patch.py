"""The patch that brings a pod's status in the API to what we want: only what differs, in strategic merge form. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.objects import PodStatus
from nodewright_agent.pods.conditions import BY_KUBELET, DISRUPTION_TARGET, OWNED
from nodewright_agent.pods.phase import TERMINAL
from nodewright_agent.pods.resize.conditions import TYPES as RESIZE

# Fields that others write: the scheduler and, for claims, controllers.
_FOREIGN = ("nominatedNodeName", "resourceClaimStatuses", "resize", "conditions")
# Lists that a strategic patch would merge by address instead of replacing them.
_MERGED_LISTS = ("podIPs", "hostIPs")


def status_patch(current: PodStatus, wanted: PodStatus) -> dict[str, Any] | None:
    """Return the fields of ``status`` to patch; None when nothing differs, or nothing may be written yet.

    A pod that is over in the API (evicted, say) never comes back: until it is over here too, nothing is written.
    """
    if current.phase in TERMINAL and wanted.phase not in TERMINAL:
        return None
    old, new = msgspec.to_builtins(current), msgspec.to_builtins(wanted)
    patch: dict[str, Any] = {}
    for name in (*new, *(name for name in old if name not in new)):
        if name in _FOREIGN or old.get(name) == new.get(name):
            continue
        value = new.get(name)
        if name in _MERGED_LISTS and value is not None:
            value = [*value, {"$patch": "replace"}] if old.get(name) else value
        patch[name] = value
    conditions = _conditions(current, wanted)
    if conditions:
        patch["conditions"] = conditions
    return patch or None


def _conditions(current: PodStatus, wanted: PodStatus) -> list[dict[str, Any]]:
    """Return the owned conditions that differ, complete: null removes what a merge would leave behind."""
    old = {condition.type: condition for condition in current.conditions}
    wishes = {condition.type for condition in wanted.conditions}
    changed: list[dict[str, Any]] = [
        {"$patch": "delete", "type": name} for name in RESIZE if name in old and name not in wishes
    ]
    for condition in wanted.conditions:
        shared = condition.type == DISRUPTION_TARGET and condition.reason == BY_KUBELET
        ours = shared or condition.type in (*OWNED, *RESIZE)
        if not ours or condition == old.get(condition.type):
            continue
        changed.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason or None,
                "message": condition.message or None,
                "lastProbeTime": None,
                "lastTransitionTime": condition.last_transition_time,
                "observedGeneration": condition.observed_generation or None,
            }
        )
    return changed
