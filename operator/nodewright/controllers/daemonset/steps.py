"""How far into the nodes a rollout may go: its scope, the partition, and steps. Pure.

- The *scope* is the nodes that should run a pod and match rollingUpdate.nodeSelector.
- Each step adds nodes: those of the scope that its selector matches, or so many more of the scope.
- The partition leaves the last so many nodes of the scope out for good.

Where only a number is given, nodes that have the new template count first, then those that lose nothing by getting it
now (their pod is going, or gone), then all others; among equals, those that a step's selector names are left to that
step, and the rest is by name. So the same nodes stay chosen while others come and go, and no node is chosen in place of
one that was updated already.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import msgspec

from nodewright.controllers.daemonset.availability import is_available
from nodewright.controllers.daemonset.extensions import RollingUpdate, Step
from nodewright.controllers.daemonset.model import RESUMED_STEP_ANNOTATION, DaemonSet, Node, Pod, RolloutStatus
from nodewright.controllers.daemonset.numbers import scaled
from nodewright.controllers.daemonset.pods import has_hash
from nodewright.controllers.daemonset.view import View
from nodewright.kube.objects import LabelSelector
from nodewright.kube.times import format_rfc3339, seconds_since

UPDATED, GOING, GONE, OLD = range(4)
_MOST_DIGITS = 9  # of a step's number that somebody has written


class Reach(msgspec.Struct, frozen=True):
    """The nodes that steps open up, each set with those before it; `all` is what follows the last one."""

    steps: Sequence[Set[str]]
    all: Set[str]

    def after(self, done: int) -> Set[str]:
        """The nodes that may have the new template once so many steps are done: those of the running step, too."""
        return self.steps[done] if done < len(self.steps) else self.all


def rules(ds: DaemonSet) -> RollingUpdate:
    """The rules of the rollout; with OnDelete there are none."""
    return ds.rolling if ds.spec.update_strategy.type == "RollingUpdate" else RollingUpdate()


def is_limited(ds: DaemonSet, done: int) -> bool:
    """Whether anything may keep the rollout from nodes, when so many steps are done."""
    rolling = rules(ds)
    partition = scaled(rolling.partition, 100, 0)  # of nodes that come tomorrow, too
    return bool(rolling.node_selector is not None or partition or done < len(rolling.steps))


def selected(ds: DaemonSet, node: Node | None) -> list[bool]:
    """Which of the selectors in the rollout's rules the node matches: where that changes, the decision may."""
    rolling = rules(ds)
    selectors = (rolling.node_selector, *(step.node_selector for step in rolling.steps))
    return [node is not None and s is not None and s.matches(node.metadata.labels) for s in selectors]


def released(view: View, done: int) -> Set[str]:
    """The nodes that may have the new template now. Nodes that keep a pod they should not have come last of all."""
    everywhere = view.verdicts.keys()
    if not is_limited(view.ds, done):
        return everywhere
    nodes = reach(view).after(done)
    return everywhere if len(nodes) == len(view.wanted) else nodes


def reach(view: View) -> Reach:
    """Work out the steps and the partition."""
    rolling, wanted = rules(view.ds), view.wanted
    if rolling.node_selector is not None:
        wanted = [node for node in wanted if _matches(view, rolling.node_selector, node)]
    rank = {node: _rank(view, node) for node in wanted}
    later = {node: _first_match(view, rolling.steps, node) for node in wanted}
    order = sorted(wanted, key=lambda node: (rank[node], -later[node], node))
    opened_by: dict[str, int] = {}
    for number, step in enumerate(rolling.steps):
        opened_by |= dict.fromkeys(_opened(view, step, order, opened_by), number)
    last = len(rolling.steps)
    # The partition takes nodes from the end: first those of no step, then those of the last one, and so on.
    order.sort(key=lambda node: (rank[node] != UPDATED, opened_by.get(node, last), rank[node], node))
    kept = order[: max(0, len(order) - scaled(rolling.partition, len(order), 0))]
    sets = [frozenset(node for node in kept if opened_by.get(node, last) <= number) for number in range(last)]
    return Reach(sets, frozenset(kept))


def advance(view: View, before: RolloutStatus, *, frozen: bool) -> tuple[int, str | None]:
    """How many steps are done, and since when the running one is ready, by what they were `before`.

    While `frozen` the running step gets ready, or is no longer, and that is all.
    """
    steps, done, since = rules(view.ds).steps, before.step, before.step_ready_time
    if done >= len(steps):
        return done, None
    sets = reach(view).steps
    while done < len(steps):
        nodes, had = sets[done], sets[done - 1] if done else frozenset[str]()
        if frozen or nodes != had:
            if not _is_ready(view, steps[done], nodes):
                return done, None
            since = since or format_rfc3339(view.now)
            if frozen or _waits(view, done, since):
                return done, since
        done, since = done + 1, None
    return done, None


def seconds_left(view: View, rollout: RolloutStatus) -> float | None:
    """Seconds until the running step has waited for long enough; None where no time is what it waits for."""
    steps = rules(view.ds).steps
    if rollout.step >= len(steps) or rollout.step_ready_time is None:
        return None
    left = steps[rollout.step].wait_seconds - seconds_since(rollout.step_ready_time, view.now)
    return left if left > 0 else None


def _opened(view: View, step: Step, order: Sequence[str], before: Set[str] | dict[str, int]) -> list[str]:
    rest = [node for node in order if node not in before]
    if step.node_selector is not None:
        return [node for node in rest if _matches(view, step.node_selector, node)]
    return rest[: scaled(step.nodes, len(order), 0)]


def _first_match(view: View, steps: Sequence[Step], node: str) -> int:
    """The first step whose selector names the node; their number where none does."""
    return next(
        (i for i, s in enumerate(steps) if s.node_selector and _matches(view, s.node_selector, node)), len(steps)
    )


def _matches(view: View, selector: LabelSelector, node: str) -> bool:
    return selector.matches(view.nodes[node].metadata.labels)


def _rank(view: View, node: str) -> int:
    found = view.pods.get(node, ())
    if any(_is_updated(view, pod) for pod in found):
        return UPDATED
    if any(not pod.deleting for pod in found):
        return OLD
    return GOING if found else GONE


def _is_updated(view: View, pod: Pod) -> bool:
    return has_hash(pod, view.update.hash, view.template_generation)


def _is_ready(view: View, step: Step, nodes: Set[str]) -> bool:
    """Whether so many of the nodes as the step demands have an available pod of the new template."""
    needed = min(len(nodes), scaled(step.min_available, len(nodes), len(nodes)))
    there = sum(
        any(_is_updated(view, pod) and not pod.deleting and is_available(view, pod) for pod in view.pods.get(node, ()))
        for node in nodes
    )
    return there >= needed


def _waits(view: View, number: int, since: str) -> bool:
    step = rules(view.ds).steps[number]
    if seconds_since(since, view.now) < step.wait_seconds:
        return True
    return step.wait_for_resume and not _is_resumed(view, number)


def _is_resumed(view: View, number: int) -> bool:
    """Whether a person has let this step pass, or a later one; people count steps from 1."""
    hash_value, _, resumed = view.ds.metadata.annotations.get(RESUMED_STEP_ANNOTATION, "").partition("/")
    is_number = resumed.isascii() and resumed.isdigit() and len(resumed) < _MOST_DIGITS
    return hash_value == view.update.hash and is_number and int(resumed) > number
