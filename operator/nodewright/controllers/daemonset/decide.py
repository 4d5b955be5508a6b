"""One decision about a DaemonSet: how far its rollout is, what each node should have, what to do next. Pure."""

from __future__ import annotations

from nodewright.controllers.daemonset import failures, progress, steps
from nodewright.controllers.daemonset.inplace import split
from nodewright.controllers.daemonset.manage import FailureGate, manage
from nodewright.controllers.daemonset.rollout import roll
from nodewright.controllers.daemonset.targets import targets_for
from nodewright.controllers.daemonset.view import Decision, Plan, View

# A look a moment too early would be a look in vain, and another one.
_MARGIN = 0.01


def decide(view: View, failure_gate: FailureGate) -> Decision:
    """Manage, and where that finds nothing to do, roll out: what `manage` does must be seen before a rollout counts."""
    failed = failures.survey(view)
    rollout = progress.advance(view, failed)
    targets = targets_for(view, rollout)
    plan = manage(view, targets, failure_gate)
    if plan.is_empty and view.ds.spec.update_strategy.type == "RollingUpdate":
        plan = _merged(plan, split(view, targets, roll(view, targets)))
    plan.retry(_after(steps.seconds_left(view, rollout)))
    seen = progress.observe(view, targets, rollout)
    late_in = min((each for each in (seen.late_in, failed.next) if each is not None), default=None)
    return Decision(targets, plan, seen.rollout, seen.phase, failed.nodes, _after(late_in))


def _after(delay: float | None) -> float | None:
    return delay + _MARGIN if delay is not None else None


def _merged(first: Plan, second: Plan) -> Plan:
    second.events = [*first.events, *second.events]
    second.retry(first.retry_after)
    return second
