"""One decision about a DaemonSet: how far its rollout is, what each node should have, what to do next. Pure."""

from __future__ import annotations

from nodewright.controllers.daemonset.manage import FailureGate, manage
from nodewright.controllers.daemonset.model import RolloutStatus
from nodewright.controllers.daemonset.rollout import roll
from nodewright.controllers.daemonset.targets import targets_for
from nodewright.controllers.daemonset.view import Decision, Plan, View


def decide(view: View, failure_gate: FailureGate) -> Decision:
    """Manage, and where that finds nothing to do, roll out: what `manage` does must be seen before a rollout counts."""
    rollout = RolloutStatus(revision=view.update.hash)
    targets = targets_for(view, rollout)
    plan = manage(view, targets, failure_gate)
    if plan.is_empty and view.ds.spec.update_strategy.type == "RollingUpdate":
        plan = _merged(plan, roll(view, targets))
    return Decision(targets, plan, rollout)


def _merged(first: Plan, second: Plan) -> Plan:
    second.events = [*first.events, *second.events]
    second.retry(first.retry_after)
    return second
