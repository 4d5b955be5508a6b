"""Which revision each node's pod should have: all nodes the newest, unless the rollout is held back somewhere. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

import msgspec

from nodewright.controllers.daemonset.model import HASH_LABEL, PAUSED_ANNOTATION, DaemonSet, Pod, RolloutStatus
from nodewright.controllers.daemonset.pods import has_hash
from nodewright.controllers.daemonset.sizes import classes
from nodewright.controllers.daemonset.steps import released, rules
from nodewright.controllers.daemonset.view import Targets, View


def is_paused(ds: DaemonSet) -> bool:
    """Whether somebody has paused the rollout, by field or, as apps/v1 has none, by annotation."""
    return ds.spec.paused or ds.metadata.annotations.get(PAUSED_ANNOTATION) == "true"


def stable_hash(view: View) -> str:
    """The revision that was rolled out last; before one was recorded, that of most pods, or else the newest."""
    recorded = view.ds.status.current_revision
    if recorded in view.revisions:
        return recorded
    counts = Counter(pod.metadata.labels.get(HASH_LABEL, "") for found in view.pods.values() for pod in found)
    known = sorted((-count, value) for value, count in counts.items() if value in view.revisions)
    return known[0][1] if known else view.update.hash


def targets_for(view: View, rollout: RolloutStatus) -> Targets:
    """The targets of a rollout that is as far as `rollout` says."""
    stable, update = stable_hash(view), view.update.hash
    has_failed = rollout.failed_revision == update
    goes_back = has_failed and stable != update and rules(view.ds).on_failure == "Rollback"
    held: Set[str] = frozenset()
    if is_paused(view.ds) or (has_failed and not goes_back):
        held = frozenset(view.verdicts)
    elif stable != update and not goes_back:
        # To go back to what was rolled out last, nothing has to be tried out.
        held = view.verdicts.keys() - released(view, rollout.step)
    return Targets(
        hash=stable if goes_back else update,
        stable=stable,
        held=held,
        classes=classes(view),
        generation=view.template_generation,
    )


def newest(view: View, targets: Targets) -> Targets:
    """The targets of a rollout of the current template, also while the decision is to go back to another one."""
    return msgspec.structs.replace(targets, hash=view.update.hash)


def is_current(view: View, targets: Targets, node: str, pod: Pod) -> bool:
    """Whether the pod is what the rollout wants on this node: its revision, and its node class."""
    generation = targets.generation if targets.hash == view.update.hash else None
    if not has_hash(pod, targets.hash, generation):
        return False
    own = pod.metadata.annotations
    return (own.node_class if own else "") == targets.classes.get(node, "")
