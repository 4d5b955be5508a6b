"""Nodes on which pods of the newest template fail, and when they are too many. Pure."""

from __future__ import annotations

from collections.abc import Set

import msgspec

from nodewright.controllers.daemonset.availability import is_available, is_ready
from nodewright.controllers.daemonset.model import RESUMED_FAILURES_ANNOTATION, DaemonSet, Pod
from nodewright.controllers.daemonset.numbers import scaled
from nodewright.controllers.daemonset.pods import has_hash
from nodewright.controllers.daemonset.prepull import AFTER_PULL, PULL_ERRORS
from nodewright.controllers.daemonset.steps import rules
from nodewright.controllers.daemonset.view import View
from nodewright.kube.conditions import find_condition
from nodewright.kube.times import seconds_since

PROGRESS_DEADLINE = 600  # seconds, as a Deployment's
# What a container may wait for while all is well has other reasons (ContainerCreating, PodInitializing).
REASONS = PULL_ERRORS | AFTER_PULL


class Failures(msgspec.Struct, frozen=True):
    """The nodes, and the seconds until the next one may count, as its pod takes too long."""

    nodes: Set[str]
    next: float | None = None


def deadline(ds: DaemonSet) -> int:
    """progressDeadlineSeconds."""
    value = ds.spec.progress_deadline_seconds
    return PROGRESS_DEADLINE if value is None else value


def survey(view: View) -> Failures:
    """Look at all nodes that should run a pod.

    A pod fails when it has ended in failure, when a container of it can't start or crashes again and again, or when it
    is not ready for progressDeadlineSeconds. Nodes where one has failed before (`view.failing`) count until a pod is
    available there, or one of another template runs: else each new attempt would hide the failures before it. A node
    fails, too, when it can't pull the images ahead.
    """
    nodes: set[str] = set()
    soonest: float | None = None
    for node, verdict in view.verdicts.items():
        if not verdict.should_run:
            continue
        if node in view.pull_errors:
            nodes.add(node)
            continue
        found = view.pods.get(node, ())
        new = [pod for pod in found if has_hash(pod, view.update.hash, view.template_generation)]
        if any(not pod.deleting and is_available(view, pod) for pod in new):
            continue
        if node in view.failing and (new or not any(not pod.deleting for pod in found)):
            nodes.add(node)
            continue
        for pod in new:
            left = _seconds_left(view, pod)
            if left is not None and left <= 0:
                nodes.add(node)
            elif left is not None:
                soonest = left if soonest is None else min(soonest, left)
    return Failures(nodes, soonest)


def are_too_many(view: View, failures: Failures) -> bool:
    """Whether there are more than maxFailed, of those nodes that should run a pod."""
    limit = rules(view.ds).max_failed
    return limit is not None and len(failures.nodes) > scaled(limit, len(view.wanted), 0)


def cause(view: View, failures: Failures) -> str:
    """How many nodes fail, and what is wrong on the first of them."""
    node = min(failures.nodes, default=None)
    if node is None:
        return ""
    return f"{len(failures.nodes)} of {len(view.wanted)} nodes: {_why(view, node)}"


def _why(view: View, node: str) -> str:
    for pod in view.pods.get(node, ()):
        if not has_hash(pod, view.update.hash, view.template_generation):
            continue
        if (stuck := _stuck(pod)) is not None:
            container, reason = stuck
            return f"container {container} of {pod.key} on {node}: {reason}"
        if pod.status.phase == "Failed":
            return f"{pod.key} on {node}: Failed"
    if node in view.pull_errors:
        return f"images can't be pulled on {node}"
    return f"no pod becomes available on {node}"


def are_resumed(view: View) -> bool:
    """Whether a person has said that failures of this revision are to be ignored."""
    return view.ds.metadata.annotations.get(RESUMED_FAILURES_ANNOTATION) == view.update.hash


def _seconds_left(view: View, pod: Pod) -> float | None:
    """Seconds until the pod counts as failing: 0 when it does, None when it never will by the time alone."""
    if pod.status.phase == "Failed":
        return 0.0
    if pod.deleting or is_ready(view, pod):
        return None
    if _stuck(pod) is not None:
        return 0.0
    since = _troubled_since(view, pod)
    return max(0.0, deadline(view.ds) - seconds_since(since, view.now)) if since else None


def _stuck(pod: Pod) -> tuple[str, str] | None:
    """The first container that can't start or crashes again and again, and the reason."""
    for container in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        if container.state and container.state.waiting and container.state.waiting.reason in REASONS:
            return container.name, container.state.waiting.reason
    return None


def _troubled_since(view: View, pod: Pod) -> str:
    """Since when the pod could be ready and is not; "" where that is not known."""
    created = pod.metadata.creation_timestamp or ""
    if view.ds.spec.run_once:
        return created  # "ready" is to have succeeded
    ready = find_condition(pod.status.conditions, "Ready")
    if ready is None:
        return created
    # Ready, and yet not by our rules: it was updated in place a moment ago, and nothing tells when.
    return "" if ready.status == "True" else max(created, ready.last_transition_time or "")
