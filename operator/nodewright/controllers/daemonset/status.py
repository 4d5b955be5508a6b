"""The status of a DaemonSet (upstream: updateDaemonSetStatus), and the Ready condition of our own kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.manage import Rules
from nodewright.controllers.daemonset.model import DaemonSet, DaemonSetStatus
from nodewright.controllers.daemonset.pods import PodsByNode, is_available, is_ready, is_updated
from nodewright.kube.objects import Condition
from nodewright.kube.times import format_rfc3339


def compute(
    ds: DaemonSet, verdicts: Mapping[str, Verdict], pods: PodsByNode, rules: Rules, now: datetime
) -> DaemonSetStatus:
    """Count. Of several pods on a node only the oldest counts. observedGeneration, collisions and conditions stay."""
    status = DaemonSetStatus(
        observed_generation=ds.status.observed_generation,
        collision_count=ds.status.collision_count,
        conditions=ds.status.conditions,
    )
    for node, verdict in verdicts.items():
        found = pods.get(node)
        if not verdict.should_run:
            status.number_misscheduled += bool(found)
            continue
        status.desired_number_scheduled += 1
        if not found:
            continue
        status.current_number_scheduled += 1
        oldest = found[0]
        if is_ready(oldest):
            status.number_ready += 1
            status.number_available += is_available(oldest, rules.min_ready_seconds, now)
        status.updated_number_scheduled += is_updated(oldest, rules.hash, rules.template_generation)
    status.number_unavailable = status.desired_number_scheduled - status.number_available
    return status


def with_ready(
    status: DaemonSetStatus, generation: int, trouble: tuple[str, str] | None, now: datetime
) -> DaemonSetStatus:
    """Set the Ready condition: every node that should has an available, current pod. `trouble` is (reason, message)."""
    desired, updated, available = (
        status.desired_number_scheduled,
        status.updated_number_scheduled,
        status.number_available,
    )
    if trouble is not None:
        value, (reason, message) = "False", trouble
    elif updated < desired:
        value, reason = "False", "RollingOut"
        message = f"{updated} of {desired} nodes have a pod of the current template"
    elif available < desired:
        value, reason = "False", "PodsUnavailable"
        message = f"{available} of {desired} pods are available"
    else:
        value, reason = "True", "AllAvailable"
        message = f"all {desired} pods are current and available"
    before = next((c for c in status.conditions if c.type == "Ready"), None)
    changed = before is None or before.status != value
    ready = Condition(
        type="Ready",
        status=value,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=format_rfc3339(now) if changed or before is None else before.last_transition_time,
    )
    others = [c for c in status.conditions if c.type != "Ready"]
    return msgspec.structs.replace(status, conditions=[*others, ready])
