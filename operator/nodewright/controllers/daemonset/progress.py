"""How far a rollout is, what it is doing, and whether it takes too long. Pure.

What must be remembered between two looks is in status.rollout; that the rollout stood still (as people or its rules
wanted it) is known from the reason of the condition Progressing: that time does not count against the deadline.
"""

from __future__ import annotations

import msgspec

from nodewright.controllers.daemonset import steps
from nodewright.controllers.daemonset.availability import is_available
from nodewright.controllers.daemonset.failures import Failures, are_resumed, are_too_many, cause, deadline
from nodewright.controllers.daemonset.model import DaemonSet, Pod, RolloutStatus
from nodewright.controllers.daemonset.pods import has_hash
from nodewright.controllers.daemonset.targets import is_current, is_paused, newest, stable_hash
from nodewright.controllers.daemonset.view import Targets, View
from nodewright.kube.conditions import find_condition
from nodewright.kube.times import format_rfc3339, seconds_since

# What a rollout is doing; these are the reasons of the condition Progressing.
FAILED = "RolloutFailed"
PAUSED = "DaemonSetPaused"
COMPLETE = "NewRevisionAvailable"
WAITING = "WaitingForStep"
ON_DELETE = "WaitingForDeletion"
HELD = "RolloutHeld"
ROLLING = "RollingOut"
LATE = "ProgressDeadlineExceeded"


class Counted(msgspec.Struct, frozen=True):
    """Of the nodes that should run a pod: how many there are, have an available pod of the newest template and no
    other, still have another one, and are open to the rollout without being done.
    """

    wanted: int
    done: int
    old: int
    due: int


class Progress(msgspec.Struct, frozen=True):
    """What `observe` finds: a word of the above, what to remember, and when (seconds) the word may become LATE."""

    phase: str
    rollout: RolloutStatus
    late_in: float | None = None


def advance(view: View, failures: Failures) -> RolloutStatus:
    """Go on from status.rollout: have steps passed, have too many pods failed? A new revision starts anew."""
    before, update = view.ds.status.rollout, view.update.hash
    if before is None or before.revision != update:
        before = RolloutStatus(revision=update, last_progress_time=format_rfc3339(view.now))
    stable = stable_hash(view)
    failed = _failed_revision(view, before, failures, stable)
    if stable == update:
        step, since = len(steps.rules(view.ds).steps), None
    else:
        step, since = steps.advance(view, before, frozen=bool(failed) or is_paused(view.ds))
    return msgspec.structs.replace(
        before,
        step=step,
        step_ready_time=since,
        failed_nodes=len(failures.nodes),
        failed_revision=failed,
        # It is kept as it was then: after a rollback there is nothing left to see of it.
        failure=(before.failure if before.failed_revision else cause(view, failures)) if failed else "",
    )


def observe(view: View, targets: Targets, rollout: RolloutStatus) -> Progress:
    """See what the rollout is doing, and note the time where it got on."""
    counted = count(view, targets)
    phase = _phase(view, rollout, counted)
    before = rollout.progress
    rollout = msgspec.structs.replace(rollout, progress=max(before, counted.done))
    if counted.done > before or (phase == ROLLING and _stood_still(view)):
        rollout.last_progress_time = format_rfc3339(view.now)
    if phase != ROLLING or rollout.last_progress_time is None:
        return Progress(phase, rollout)
    left = deadline(view.ds) - seconds_since(rollout.last_progress_time, view.now)
    return Progress(ROLLING, rollout, left) if left > 0 else Progress(LATE, rollout)


def count(view: View, targets: Targets) -> Counted:
    """Count nodes; also where the rollout goes back to another revision, the newest one is what is asked about."""
    targets = newest(view, targets)
    wanted = done = old = due = 0
    for node, verdict in view.verdicts.items():
        if not verdict.should_run:
            continue
        wanted += 1
        found = view.pods.get(node) or []
        has_old = any(not pod.deleting and not is_current(view, targets, node, pod) for pod in found)
        # As in the status, the oldest pod is the one that counts.
        is_done = bool(found) and not has_old and _is_done(view, targets, node, found[0])
        done += is_done
        old += has_old
        due += not is_done and node not in targets.held
    return Counted(wanted, done, old, due)


def is_complete(ds: DaemonSet, rollout: RolloutStatus, *, wanted: int, done: int) -> bool:
    """Whether the revision is rolled out to its end: on all nodes, all steps done.

    On no node at all, that is only said where nothing could hold the rollout back: a canary whose nodes were all
    tainted for a moment has proven nothing.
    """
    if done < wanted or rollout.failed_revision == rollout.revision:
        return False
    if wanted == 0 and (is_paused(ds) or steps.is_limited(ds, rollout.step)):
        return False
    return rollout.step >= len(steps.rules(ds).steps)


def is_noted(view: View, rollout: RolloutStatus) -> bool:
    """Whether the status says which steps are done, and that the rollout has failed.

    It must, before anything is done about it: a controller that is killed in between would not find that out again from
    the pods, and begin the failed rollout anew.
    """
    before = view.ds.status.rollout
    if before is None or before.revision != rollout.revision:
        before = RolloutStatus()
    return (before.step, before.failed_revision) == (rollout.step, rollout.failed_revision)


def last_phase(ds: DaemonSet) -> str | None:
    """What the rollout was doing when the status was written last."""
    condition = find_condition(ds.status.conditions, "Progressing")
    return condition.reason if condition is not None else None


def _is_done(view: View, targets: Targets, node: str, pod: Pod) -> bool:
    return is_current(view, targets, node, pod) and is_available(view, pod)


def _failed_revision(view: View, before: RolloutStatus, failures: Failures, stable: str) -> str:
    """The revision, where failures stop its rollout. Its first one, and the way back to it, are not stopped:

    there is no better one to keep.
    """
    if are_resumed(view):
        return ""
    if before.failed_revision:
        return "" if _recovered(view) else before.failed_revision
    return view.update.hash if stable != view.update.hash and are_too_many(view, failures) else ""


def _recovered(view: View) -> bool:
    """Whether each node has an available pod of the newest template after all, and no other."""
    wanted = view.wanted
    return bool(wanted) and all(
        (found := view.pods.get(node))
        and all(has_hash(pod, view.update.hash, view.template_generation) for pod in found)
        and is_available(view, found[0])
        for node in wanted
    )


def _phase(view: View, rollout: RolloutStatus, counted: Counted) -> str:
    ds = view.ds
    if rollout.failed_revision == rollout.revision:
        return FAILED
    if is_paused(ds):
        return PAUSED
    if is_complete(ds, rollout, wanted=counted.wanted, done=counted.done):
        return COMPLETE
    before = ds.status.rollout
    if last_phase(ds) == COMPLETE and before is not None and before.revision == rollout.revision and not counted.old:
        return COMPLETE  # pods that fail later, and new nodes, do not begin a rollout
    if rollout.step_ready_time is not None:
        return WAITING
    if counted.due:
        waits_for_people = ds.spec.update_strategy.type == "OnDelete" and counted.old == counted.due
        return ON_DELETE if waits_for_people else ROLLING
    return HELD


def _stood_still(view: View) -> bool:
    before = last_phase(view.ds)
    return before is not None and before not in (ROLLING, LATE)
