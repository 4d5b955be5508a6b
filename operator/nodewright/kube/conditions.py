"""Status conditions: setting one without losing when it last changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nodewright.kube import times
from nodewright.kube.api.meta import Condition


def set_condition(
    conditions: list[Condition],
    type: str,
    status: str,
    reason: str = "",
    message: str = "",
    observed_generation: int = 0,
    now: str | None = None,
) -> bool:
    """Set a condition in place, and tell whether anything changed.

    lastTransitionTime moves only when the status changes (API conventions), to `now` (RFC 3339; default: the clock).
    """
    moment = now or times.now_rfc3339()
    for condition in conditions:
        if condition.type != type:
            continue
        before = (condition.status, condition.reason, condition.message, condition.observed_generation)
        if before == (status, reason, message, observed_generation):
            return False
        if condition.status != status or condition.last_transition_time is None:
            condition.last_transition_time = moment
        condition.status, condition.reason, condition.message = status, reason, message
        condition.observed_generation = observed_generation
        return True
    conditions.append(Condition(type, status, reason, message, moment, observed_generation))
    return True


def find_condition(conditions: Sequence[Any], type: str) -> Any | None:
    """Give the condition of a type, of Condition, PodCondition or NodeCondition."""
    return next((condition for condition in conditions if condition.type == type), None)


def is_true(conditions: Sequence[Any], type: str) -> bool:
    """Tell whether a condition exists and is True."""
    condition = find_condition(conditions, type)
    return condition is not None and condition.status == "True"
