"""The status of a DaemonSet (upstream: updateDaemonSetStatus), and the Ready condition of our own kind. Pure."""

from __future__ import annotations

from datetime import datetime

from nodewright.controllers.daemonset.availability import is_available, is_ready
from nodewright.controllers.daemonset.conditions import put
from nodewright.controllers.daemonset.model import DaemonSetStatus
from nodewright.controllers.daemonset.progress import is_complete
from nodewright.controllers.daemonset.targets import is_current, newest
from nodewright.controllers.daemonset.view import Decision, Targets, View

# Fields of the status that apps/v1 lacks, or that nobody writes there.
EXTENSIONS = ("conditions", "currentRevision", "updateRevision", "rollout")


def compute(view: View, targets: Targets) -> DaemonSetStatus:
    """Count. Of several pods on a node only the oldest counts. observedGeneration, collisions and conditions stay.

    What is updated is what the current template makes, also where the rollout goes back to another revision.
    """
    before = view.ds.status
    status = DaemonSetStatus(
        observed_generation=before.observed_generation,
        collision_count=before.collision_count,
        conditions=before.conditions,
        current_revision=before.current_revision,
        update_revision=before.update_revision,
        rollout=before.rollout,
    )
    current = newest(view, targets)
    for node, verdict in view.verdicts.items():
        found = view.pods.get(node)
        if not verdict.should_run:
            status.number_misscheduled += bool(found)
            continue
        status.desired_number_scheduled += 1
        if not found:
            continue
        status.current_number_scheduled += 1
        oldest = found[0]
        if is_ready(view, oldest):
            status.number_ready += 1
            status.number_available += is_available(view, oldest)
        status.updated_number_scheduled += is_current(view, current, node, oldest)
    status.number_unavailable = status.desired_number_scheduled - status.number_available
    return status


def with_rollout(status: DaemonSetStatus, view: View, decision: Decision) -> DaemonSetStatus:
    """Set the revisions, and how far the rollout is.

    The current revision becomes the newest once every node that should has an available pod of it, all steps done. For
    a new DaemonSet it is the first one from the start: there is nothing else to go back to.
    """
    targets, update = decision.targets, view.update.hash
    desired = status.desired_number_scheduled
    done = min(status.updated_number_scheduled, status.number_available)
    is_done = is_complete(view.ds, decision.rollout, wanted=desired, done=done)
    status.update_revision = update
    status.current_revision = update if is_done else targets.stable
    status.rollout = decision.rollout
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
    return put(status, "Ready", (value, reason, message), generation, now)
