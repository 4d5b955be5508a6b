"""PodTopologySpreadArgs: constraints for Pods that have none must be complete and tell nothing twice."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import Faults, label_name_fault
from ..objects import TopologySpreadConstraint

_ACTIONS = ("DoNotSchedule", "ScheduleAnyway")


def check_default_constraints(defaulting_type: str, constraints: Sequence[TopologySpreadConstraint]) -> None:
    """Upstream's ValidatePodTopologySpreadArgs. Raises ValueError with all that is wrong."""
    faults = Faults()
    if defaulting_type not in ("System", "List"):
        faults.unsupported("defaultingType", defaulting_type, ("System", "List"))
    elif defaulting_type == "System" and constraints:
        faults.invalid("defaultingType", defaulting_type, "when .defaultConstraints are not empty")
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        field = f"defaultConstraints[{index}]"
        key, action = constraint.topology_key, constraint.when_unsatisfiable
        if constraint.max_skew <= 0:
            faults.invalid(f"{field}.maxSkew", constraint.max_skew, "not in valid range (0, inf)")
        if not key:
            faults.required(f"{field}.topologyKey", "can not be empty")
        elif why := label_name_fault(key):
            faults.invalid(f"{field}.topologyKey", key, why)
        if not action:
            faults.required(f"{field}.whenUnsatisfiable", "can not be empty")
        elif action not in _ACTIONS:
            faults.unsupported(f"{field}.whenUnsatisfiable", action, _ACTIONS)
        if constraint.label_selector is not None:
            why = "constraint must not define a selector, as they deduced for each pod"
            faults.forbidden(f"{field}.labelSelector", why)
        if (key, action) in seen:
            faults.duplicate(field, f"{{{key}, {action}}}")
        seen.add((key, action))
    faults.check()
