"""RollingUpdate: which old pods to delete, and where to start new ones beside them (upstream: rollingUpdate). Pure.

One deviation: an old pod that is not available counts against maxUnavailable, as any other node without an
available pod does. It is still replaced at once. Upstream does not count it, and so two updates in quick succession
can take all pods down (kubernetes#123232).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.manage import Plan, Rules
from nodewright.controllers.daemonset.model import Pod, RollingUpdate
from nodewright.controllers.daemonset.pods import PodsByNode, is_available, is_updated


def scaled(value: int | str | None, total: int, default: int) -> int:
    """A count, or a percentage of `total` rounded up. Text that is neither gives the default."""
    if value is None:
        return default
    if isinstance(value, int):
        return max(0, value)
    number = value.removesuffix("%")
    if number == value or not number.isascii() or not number.isdigit():
        return default
    return -(-int(number) * total // 100)


def limits(rolling: RollingUpdate, desired: int) -> tuple[int, int]:
    """(maxUnavailable, maxSurge) as counts; never both zero while there is something to do."""
    unavailable = scaled(rolling.max_unavailable, desired, 1)
    surge = scaled(rolling.max_surge, desired, 0)
    if desired > 0 and unavailable == 0 and surge == 0:
        unavailable = 1
    return unavailable, surge


def allows_surge(rolling: RollingUpdate) -> bool:
    """Whether maxSurge is above zero; 100 stands for any total."""
    return scaled(rolling.max_surge, 100, 0) > 0


def roll(
    verdicts: Mapping[str, Verdict], pods: PodsByNode, rolling: RollingUpdate, rules: Rules, now: datetime
) -> Plan:
    """Plan one step of the update."""
    wanted = [node for node, verdict in verdicts.items() if verdict.should_run]
    nodes: dict[str, list[Pod]] = {node: [] for node in wanted} | pods
    max_unavailable, max_surge = limits(rolling, len(wanted))
    if max_surge == 0:
        return _replace(nodes, max_unavailable, rules, now)
    return _surge(nodes, verdicts, max_surge, len(wanted), rules, now)


def _pair(found: list[Pod], rules: Rules) -> tuple[Pod | None, Pod | None] | None:
    """(new, old) of a node, or None when there is more than one of either: `manage` cleans that up first."""
    new: Pod | None = None
    old: Pod | None = None
    for pod in found:
        if pod.deleting:
            continue
        if is_updated(pod, rules.hash, rules.template_generation):
            if new is not None:
                return None
            new = pod
        else:
            if old is not None:
                return None
            old = pod
    return new, old


def _replace(nodes: dict[str, list[Pod]], max_unavailable: int, rules: Rules, now: datetime) -> Plan:
    """Delete old pods while fewer than maxUnavailable nodes lack an available pod; `manage` makes their successors."""
    unavailable = 0
    at_once: list[Pod] = []
    candidates: list[Pod] = []
    for node in sorted(nodes):
        pair = _pair(nodes[node], rules)
        if pair is None:
            unavailable += 1
            continue
        new, old = pair
        if new is not None and old is None:
            unavailable += not is_available(new, rules.min_ready_seconds, now)
        elif new is None and old is not None:
            if is_available(old, rules.min_ready_seconds, now):
                candidates.append(old)
            else:
                unavailable += 1
                at_once.append(old)
        else:
            unavailable += 1  # none, or one of each: `manage` will create or delete here
    return Plan(delete=at_once + candidates[: max(0, max_unavailable - unavailable)])


def _surge(
    nodes: dict[str, list[Pod]],
    verdicts: Mapping[str, Verdict],
    max_surge: int,
    desired: int,
    rules: Rules,
    now: datetime,
) -> Plan:
    """Start new pods beside old ones, at most `max_surge` at a time; delete an old one once its successor is available.

    Where the old pod is not available there is nothing to keep: the new one starts without regard to the limit.
    Pods on nodes that no longer match go only as far as available ones elsewhere make up for them.
    """
    plan = Plan()
    surging = available = 0
    candidates: list[str] = []
    leaving: list[Pod] = []
    for node in sorted(nodes):
        pair = _pair(nodes[node], rules)
        if pair is None:
            surging += 1
            continue
        new, old = pair
        counted = old if old is not None else new
        counted_available = counted is not None and is_available(counted, rules.min_ready_seconds, now)
        available += counted_available
        if old is None:
            continue
        if new is not None:
            if is_available(new, rules.min_ready_seconds, now):
                plan.delete.append(old)
            else:
                surging += 1
        elif not (verdict := verdicts.get(node)) or not verdict.should_run:
            if verdict is not None:
                (leaving if counted_available else plan.delete).append(old)
        elif counted_available:
            candidates.append(node)
        else:
            plan.create.append(node)
    plan.delete += leaving[: max(0, available - desired)]
    plan.create += candidates[: max(0, max_surge - surging)]
    return plan
