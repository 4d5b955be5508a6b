"""RollingUpdate: which old pods to delete, and where to start new ones beside them (upstream: rollingUpdate). Pure.

An old pod that is not available counts against maxUnavailable, as any other node without an available pod does, and is
replaced at once. (Before 1.36 upstream did not count it, and so two updates in quick succession could take all pods
down: kubernetes#123232.)

With `unavailablePods: WithinBudget` such pods are replaced one after the other, too: so many at a time that no more
than maxUnavailable (maxSurge) nodes are being worked on, that is, have no pod, or a new one that is not available.
The old pods that are not available are not among these nodes, so they can't keep the rollout from replacing them.
"""

from __future__ import annotations

from nodewright.controllers.daemonset.availability import is_available
from nodewright.controllers.daemonset.extensions import RollingUpdate
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.numbers import scaled
from nodewright.controllers.daemonset.targets import is_current
from nodewright.controllers.daemonset.view import Plan, Targets, View


def limits(rolling: RollingUpdate, desired: int) -> tuple[int, int]:
    """(maxUnavailable, maxSurge) as counts; never both zero while there is something to do."""
    unavailable = scaled(rolling.max_unavailable, desired, 1)
    surge = scaled(rolling.max_surge, desired, 0)
    if desired > 0 and unavailable == 0 and surge == 0:
        unavailable = 1
    return unavailable, surge


def roll(view: View, targets: Targets) -> Plan:
    """Plan one step of the update."""
    wanted = view.wanted
    nodes: dict[str, list[Pod]] = {node: [] for node in wanted} | view.pods
    max_unavailable, max_surge = limits(view.ds.rolling, len(wanted))
    if max_surge == 0:
        return _replace(view, targets, nodes, max_unavailable)
    return _surge(view, targets, nodes, max_surge, len(wanted))


def pair(view: View, targets: Targets, node: str, found: list[Pod]) -> tuple[Pod | None, Pod | None] | None:
    """(new, old) of a node, or None when there is more than one of either: `manage` cleans that up first."""
    new: Pod | None = None
    old: Pod | None = None
    for pod in found:
        if pod.deleting:
            continue
        if is_current(view, targets, node, pod):
            if new is not None:
                return None
            new = pod
        else:
            if old is not None:
                return None
            old = pod
    return new, old


def _replace(view: View, targets: Targets, nodes: dict[str, list[Pod]], max_unavailable: int) -> Plan:
    """Delete old pods while fewer than maxUnavailable nodes lack an available pod; `manage` makes their successors."""
    working = lost = 0  # nodes without an available pod: those that are being worked on, and those with an old one
    choice = _Choice(view, targets)
    for node in sorted(nodes):
        found = pair(view, targets, node, nodes[node])
        new, old = found or (None, None)
        if new is not None and old is None:
            working += not is_available(view, new)
        elif new is None and old is not None:
            is_sound = is_available(view, old)
            lost += not is_sound
            choice.add(node, old, is_sound)
        else:
            working += 1  # none, or one of each, or more: `manage` will create or delete here
    chosen = choice.make(max_unavailable - working, max_unavailable - working - lost)
    return Plan(delete=[old for _, old in chosen], pre_pull=choice.pre_pull)


def _surge(view: View, targets: Targets, nodes: dict[str, list[Pod]], max_surge: int, desired: int) -> Plan:
    """Start new pods beside old ones, at most `max_surge` at a time; delete an old one once its successor is available.

    Where the old pod is not available there is nothing to keep: the new one starts without regard to the limit, unless
    that is to be kept for those, too (and then they go first).
    Pods on nodes that no longer match go only as far as available ones elsewhere make up for them.
    """
    plan, choice = Plan(), _Choice(view, targets)
    surging = starting = available = 0
    leaving: list[Pod] = []
    for node in sorted(nodes):
        found = pair(view, targets, node, nodes[node])
        if found is None:
            surging += 1
            continue
        new, old = found
        counted = old if old is not None else new
        counted_available = counted is not None and is_available(view, counted)
        available += counted_available
        verdict = view.verdicts.get(node)
        if old is None:
            starting += verdict is not None and verdict.should_run and not counted_available
        elif new is not None:
            if is_available(view, new):
                plan.delete.append(old)
            else:
                surging += 1
        elif verdict is None or not verdict.should_run:
            if verdict is not None:
                (leaving if counted_available else plan.delete).append(old)
        else:
            choice.add(node, old, counted_available)
    plan.delete += leaving[: max(0, available - desired)]
    free = max_surge - surging - (starting if choice.within_budget else 0)
    plan.create += [node for node, _ in choice.make(free, free, shared=True)]
    plan.pre_pull = choice.pre_pull
    return plan


class _Choice:
    """Which old pods to replace now: those that are not available first, for they cost nothing."""

    def __init__(self, view: View, targets: Targets) -> None:
        self._view, self._targets, self._rolling = view, targets, view.ds.rolling
        self.within_budget = self._rolling.unavailable_pods == "WithinBudget"
        self._lost: list[tuple[str, Pod]] = []
        self._sound: list[tuple[str, Pod]] = []
        self._ends: set[str] = set()  # nodes whose pod gets no successor
        self.pre_pull: list[str] = []

    def add(self, node: str, old: Pod, is_sound: bool) -> None:
        """Let a pod take part, unless its node is held."""
        if node not in self._targets.held:
            (self._sound if is_sound else self._lost).append((node, old))
            verdict = self._view.verdicts.get(node)
            if verdict is None or not verdict.should_run:
                self._ends.add(node)

    def make(self, for_lost: int, for_sound: int, *, shared: bool = False) -> list[tuple[str, Pod]]:
        """Choose so many at most; the limit for those that are not available counts only if the user wants it.

        `shared`: each of these then takes the place of an available one. Otherwise they are in `for_sound` already.
        """
        lost, sound = self._pulled()
        if self.within_budget:
            lost = lost[: max(0, for_lost)]
            for_sound -= len(lost) if shared else 0
        return lost + sound[: max(0, for_sound)]

    def _pulled(self) -> tuple[list[tuple[str, Pod]], list[tuple[str, Pod]]]:
        """Those whose node has the new images, or gets no new pod; the first of the others are to pull them."""
        if self._rolling.pre_pull is None or self._targets.hash != self._view.update.hash:
            return self._lost, self._sound
        failing, most = self._view.pull_errors, self._rolling.pre_pull.max_parallel
        # A puller would be of no use where the node is gone, or should not run a pod and only keeps its old one.
        pulled = self._view.pulled | self._ends
        waiting = [n for n, _ in (*self._lost, *self._sound) if n not in pulled and n not in failing]
        # Where a pull fails it is tried on and on; until there are many such nodes, they take no other's turn.
        self.pre_pull = waiting[: max(0, min(most, 2 * most - len(failing)))]
        lost, sound = ([each for each in some if each[0] in pulled] for some in (self._lost, self._sound))
        return lost, sound
