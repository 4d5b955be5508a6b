"""PodResizePending and PodResizeInProgress: present only while they are true. Pure."""

from __future__ import annotations

from nodewright.kube.objects import PodCondition
from nodewright_agent.pods.resize.state import ResizeState
from nodewright_agent.pods.times import rfc3339

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
TYPES = (PENDING, IN_PROGRESS)
"""Conditions that are removed, not set to False, when they no longer hold."""
DEFERRED, INFEASIBLE, ERROR = "Deferred", "Infeasible", "Error"


def conditions(state: ResizeState) -> list[PodCondition]:
    """Return the conditions that hold now."""
    found = []
    if (pending := state.pending) is not None:
        found.append(
            PodCondition(
                type=PENDING,
                status="True",
                reason=pending.reason,
                message=pending.message,
                last_transition_time=rfc3339(pending.since),
                observed_generation=pending.generation,
            )
        )
    if (progress := state.progress) is not None:
        found.append(
            PodCondition(
                type=IN_PROGRESS,
                status="True",
                reason=ERROR if progress.error else "",
                message=progress.error,
                last_transition_time=rfc3339(progress.since),
                observed_generation=progress.generation,
            )
        )
    return found
