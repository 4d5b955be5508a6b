"""RollingUpdate: which old pods to delete, and where to start new ones beside them (upstream: rollingUpdate). Pure.

One deviation: an old pod that is not available counts against maxUnavailable, as any other node without an
available pod does. It is still replaced at once. Upstream does not count it, and so two updates in quick succession
can take all pods down (kubernetes#123232).
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
    unavailable = 0
    at_once: list[Pod] = []
    candidates: list[Pod] = []
    for node in sorted(nodes):
        found = pair(view, targets, node, nodes[node])
        if found is None:
            unavailable += 1
            continue
        new, old = found
        if new is not None and old is None:
            unavailable += not is_available(view, new)
        elif new is None and old is not None:
            is_held = node in targets.held
            if not is_available(view, old):
                unavailable += 1
                if not is_held:
                    at_once.append(old)
            elif not is_held:
                candidates.append(old)
        else:
            unavailable += 1  # none, or one of each: `manage` will create or delete here
    return Plan(delete=at_once + candidates[: max(0, max_unavailable - unavailable)])


def _surge(view: View, targets: Targets, nodes: dict[str, list[Pod]], max_surge: int, desired: int) -> Plan:
    """Start new pods beside old ones, at most `max_surge` at a time; delete an old one once its successor is available.

    Where the old pod is not available there is nothing to keep: the new one starts without regard to the limit.
    Pods on nodes that no longer match go only as far as available ones elsewhere make up for them.
    """
    plan = Plan()
    surging = available = 0
    candidates: list[str] = []
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
        if old is None:
            continue
        if new is not None:
            if is_available(view, new):
                plan.delete.append(old)
            else:
                surging += 1
        elif not (verdict := view.verdicts.get(node)) or not verdict.should_run:
            if verdict is not None:
                (leaving if counted_available else plan.delete).append(old)
        elif node in targets.held:
            continue
        elif counted_available:
            candidates.append(node)
        else:
            plan.create.append(node)
    plan.delete += leaving[: max(0, available - desired)]
    plan.create += candidates[: max(0, max_surge - surging)]
    return plan
