"""The conditions Available, Progressing and Degraded of our own kind, and the events of its rollouts. Pure.

Reasons and texts are in the manner of a Deployment's. They change when something happens, not with every pod: the
numbers are elsewhere in the status.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from nodewright.controllers.daemonset import progress
from nodewright.controllers.daemonset.failures import deadline
from nodewright.controllers.daemonset.model import DaemonSetStatus
from nodewright.controllers.daemonset.rollout import limits
from nodewright.controllers.daemonset.steps import rules
from nodewright.controllers.daemonset.view import Decision, PodEvent, View
from nodewright.kube.conditions import find_condition
from nodewright.kube.objects import Condition
from nodewright.kube.times import format_rfc3339

# What is wrong beyond the pods: a reason and a message, for Ready and Degraded.
Trouble = tuple[str, str]
Finding = tuple[str, str, str]  # status, reason, message


def put(status: DaemonSetStatus, type_: str, finding: Finding, generation: int, now: datetime) -> DaemonSetStatus:
    """Set a condition in its place; its time changes only when its status does."""
    value, reason, message = finding
    before = find_condition(status.conditions, type_)
    since = before.last_transition_time if before is not None and before.status == value else format_rfc3339(now)
    made = Condition(type_, value, reason, message, since, generation)
    conditions = [made if each is before else each for each in status.conditions]
    return msgspec.structs.replace(status, conditions=conditions if before is not None else [*conditions, made])


def with_conditions(
    status: DaemonSetStatus, view: View, decision: Decision, trouble: Trouble | None
) -> DaemonSetStatus:
    """Set the three; `status` has its numbers already."""
    generation = view.ds.metadata.generation
    findings = {
        "Available": _available(status, view),
        "Progressing": _progressing(view, decision),
        "Degraded": _degraded(view, decision, trouble),
    }
    for type_, finding in findings.items():
        status = put(status, type_, finding, generation, view.now)
    return status


def events(view: View, after: DaemonSetStatus) -> list[PodEvent]:
    """What has happened between the status that the view has and the next one: each is told once."""
    before, rollout, update = view.ds.status, after.rollout, view.update.hash
    if rollout is None:
        return []
    last = before.rollout if before.rollout and before.rollout.revision == update else None
    found: list[PodEvent] = []
    condition = find_condition(after.conditions, "Progressing")
    if rollout.failed_revision and not (last and last.failed_revision) and condition is not None:
        goes_back = (degraded := find_condition(after.conditions, "Degraded")) and degraded.reason == "RolledBack"
        found.append(PodEvent("Warning", "RolloutRolledBack" if goes_back else "RolloutFailed", condition.message))
    if step := _step_ready(view, after):
        total = len(rules(view.ds).steps)
        found.append(PodEvent("Normal", "RolloutStepReady", f'Step {step} of {total} of revision "{update}" is ready.'))
    was_under_way = progress.last_phase(view.ds) not in (None, progress.COMPLETE, progress.PAUSED)
    is_news = before.current_revision not in ("", update) and after.current_revision == update
    if condition is not None and condition.reason == progress.COMPLETE and (was_under_way or is_news):
        found.append(PodEvent("Normal", "RolloutComplete", condition.message))
    return found


def _step_ready(view: View, after: DaemonSetStatus) -> int:
    """The last step (from 1) that was not ready before and is now, or is done by now; else 0."""
    before, rollout = view.ds.status.rollout, after.rollout
    if before is None or rollout is None or before.revision != rollout.revision:
        return 0
    if view.ds.status.current_revision == rollout.revision:
        return 0  # nothing is tried out on the way back
    ready = rollout.step + (rollout.step_ready_time is not None)
    was_ready = before.step + (before.step_ready_time is not None)
    return ready if ready > was_ready else 0


def _available(status: DaemonSetStatus, view: View) -> Finding:
    """At most maxUnavailable nodes lack an available pod, and not all do."""
    desired, available = status.desired_number_scheduled, status.number_available
    may_lack, _ = limits(rules(view.ds), desired)
    if desired - available <= may_lack and (available or not desired):
        return "True", "MinimumPodsAvailable", "DaemonSet has minimum availability."
    return "False", "MinimumPodsUnavailable", "DaemonSet does not have minimum availability."


def _progressing(view: View, decision: Decision) -> Finding:
    phase, revision = decision.phase, f'Revision "{view.update.hash}"'
    if phase == progress.FAILED:
        return "False", phase, _failed(view, decision)
    if phase == progress.PAUSED:
        return "Unknown", phase, "DaemonSet is paused."
    if phase == progress.LATE:
        return "False", phase, f"{revision} has made no progress for {deadline(view.ds)} s."
    messages = {
        progress.COMPLETE: f"{revision} is rolled out.",
        progress.ROLLING: f"{revision} is being rolled out.",
        progress.HELD: f"{revision} is on all nodes that partition and nodeSelector let have it.",
        progress.ON_DELETE: f"{revision} waits for old pods to be deleted (strategy OnDelete).",
    }
    return "True", phase, messages.get(phase) or _waiting(view, decision)


def _waiting(view: View, decision: Decision) -> str:
    found, number = rules(view.ds).steps, decision.rollout.step
    step = found[number]
    waits = [f"{step.wait_seconds} s"] if step.wait_seconds else []
    waits += ["`nodewright rollout resume`"] if step.wait_for_resume else []
    which = f'Step {number + 1} of {len(found)} of revision "{view.update.hash}"'
    return f"{which} is ready and waits for {' and '.join(waits)}."


def _failed(view: View, decision: Decision) -> str:
    why = f" ({decision.rollout.failure})" if decision.rollout.failure else ""
    text = f'Pods of revision "{view.update.hash}" fail on more nodes than maxFailed allows{why}'
    back = decision.targets.hash
    return f'{text}: the DaemonSet goes back to revision "{back}".' if _goes_back(view, decision) else f"{text}."


def _goes_back(view: View, decision: Decision) -> bool:
    return decision.targets.hash != view.update.hash


def _degraded(view: View, decision: Decision, trouble: Trouble | None) -> Finding:
    if trouble is not None:
        return "True", *trouble
    if decision.phase == progress.FAILED:
        return "True", "RolledBack" if _goes_back(view, decision) else "PodsFailing", _failed(view, decision)
    if decision.failing:
        count = len(decision.failing)
        return (
            "True",
            "PodsFailing",
            f'Pods of revision "{view.update.hash}" fail on {count} of {len(view.wanted)} nodes.',
        )
    return "False", "AsExpected", "DaemonSet works as expected."
