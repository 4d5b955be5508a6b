"""What a DaemonSet's rollout waits for, read from the same view and decision that the controller acts on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

import msgspec

from nodewright.controllers.daemonset.availability import is_available, ready_since
from nodewright.controllers.daemonset.details import Trouble
from nodewright.controllers.daemonset.extensions import Step
from nodewright.controllers.daemonset.model import Pod, RolloutStatus
from nodewright.controllers.daemonset.numbers import scaled
from nodewright.controllers.daemonset.progress import WAITING
from nodewright.controllers.daemonset.rollout import limits, pair
from nodewright.controllers.daemonset.steps import released
from nodewright.controllers.daemonset.targets import is_current, is_paused, newest, targets_for
from nodewright.controllers.daemonset.view import Decision, Targets, View
from nodewright.kube.times import format_rfc3339, parse_rfc3339

_SHOWN = 3


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is waited for: `kind` is a word for programs, `nodes` are those that it is about."""

    kind: str
    message: str
    nodes: list[str] = []


def named(nodes: Collection[str]) -> str:
    """Some of the nodes by name, and how many more there are."""
    shown = sorted(nodes)[:_SHOWN]
    more = len(nodes) - len(shown)
    return f"{', '.join(shown)} and {more} more" if more else ", ".join(shown)


def behind(view: View, targets: Targets) -> list[str]:
    """Nodes that should run a pod, and have no available one of the current template."""
    return [node for node in view.wanted if not _is_done(view, newest(view, targets), node)]


def held_for_good(view: View, rollout: RolloutStatus) -> frozenset[str]:
    """Nodes that the rollout leaves out even after its last step: by partition and by selector."""
    strategy = view.ds.spec.update_strategy
    if strategy.type != "RollingUpdate" or is_stopped(view, rollout) or is_paused(view.ds):
        return frozenset()
    after = msgspec.structs.replace(rollout, step=len(view.ds.rolling.steps))
    return frozenset(targets_for(view, after).held)


def is_stopped(view: View, rollout: RolloutStatus) -> bool:
    """Whether failures have stopped the rollout of the current template."""
    return rollout.failed_revision == view.update.hash


def waits(view: View, decision: Decision, troubles: Mapping[str, Trouble] | None = None) -> list[Wait]:
    """All that is waited for, until every node that should has an available pod of the current template.

    `troubles` says by pod key what is wrong with pods that are not ready.
    """
    targets = newest(view, decision.targets)
    late = behind(view, targets)
    found = _pods_under_way(view, targets, late, troubles or {})
    old = [node for node in late if any(not is_current(view, targets, node, pod) for pod in _live(view, node))]
    if view.ds.spec.update_strategy.type == "OnDelete":
        if old:
            message = f"somebody has to delete the old pods on {_nodes(old)} (strategy OnDelete)"
            found.append(Wait("onDelete", message, old))
        return found
    found += _stopped(view, decision, old)
    held = [node for node in old if node in decision.targets.held]
    if is_paused(view.ds) and old:
        found.append(Wait("paused", f"the rollout is paused; the old template stays on {_nodes(old)}", old))
    elif held and not is_stopped(view, decision.rollout):
        found += _held(view, decision, held)
    elif decision.phase == WAITING:
        found.append(_step(view, decision, []))  # all nodes are done, and yet the last step is not
    free = sorted(set(old) - set(held))
    if free and not is_stopped(view, decision.rollout):
        found += _budget(view, decision, free)
    return found


def _is_done(view: View, targets: Targets, node: str) -> bool:
    """The oldest pod, which is the one that counts, is of the template, available and stays; there is no old one."""
    oldest = next(iter(view.pods.get(node, ())), None)
    if oldest is None or oldest.deleting or any(not is_current(view, targets, node, pod) for pod in _live(view, node)):
        return False
    return is_current(view, targets, node, oldest) and is_available(view, oldest)


def _live(view: View, node: str) -> list[Pod]:
    return [pod for pod in view.pods.get(node, ()) if not pod.deleting]


def _nodes(nodes: Collection[str]) -> str:
    return f"{_count(len(nodes))} ({named(nodes)})"


def _count(number: int) -> str:
    return f"{number} node{'s' if number != 1 else ''}"


def _pods_under_way(view: View, targets: Targets, late: Iterable[str], troubles: Mapping[str, Trouble]) -> list[Wait]:
    """Pods of the current template that are missing, starting, or ready but not for long enough; old ones leaving."""
    missing, leaving, starting, warming = [], [], [], []
    why: Counter[str] = Counter()
    for node in late:
        live = _live(view, node)
        current = [pod for pod in live if is_current(view, targets, node, pod)]
        oldest = next(iter(view.pods.get(node, ())), None)
        if oldest is None:
            missing.append(node)
        elif oldest.deleting or not live:
            leaving.append(node)
        elif current and ready_since(view, current[0]) is not None:
            if not is_available(view, current[0]):
                warming.append((node, current[0]))
        elif current:
            starting.append(node)
            if (trouble := troubles.get(current[0].key)) is not None:
                why[trouble.reason] += 1
    found = []
    if missing:
        found.append(Wait("create", f"no pod yet on {_nodes(missing)}", missing))
    if leaving:
        found.append(Wait("leaving", f"pods are being deleted on {_nodes(leaving)}", leaving))
    if starting:
        reasons = "".join(f"; {count} × {reason}" for reason, count in why.most_common(_SHOWN))
        found.append(Wait("ready", f"new pods are not ready on {_nodes(starting)}{reasons}", starting))
    if warming:
        nodes = [node for node, _ in warming]
        when = min(filter(None, (available_at(view, pod) for _, pod in warming)), default="")
        until = f", the next at {when}" if when else ""
        message = f"new pods must be ready for {view.ds.spec.min_ready_seconds} s on {_nodes(nodes)}{until}"
        found.append(Wait("minReadySeconds", message, nodes))
    return found


def available_at(view: View, pod: Pod) -> str:
    """When a ready pod has been ready for minReadySeconds; "" where its readiness has no time."""
    since = ready_since(view, pod)
    return format_rfc3339(parse_rfc3339(since) + timedelta(seconds=view.ds.spec.min_ready_seconds)) if since else ""


def _stopped(view: View, decision: Decision, old: list[str]) -> list[Wait]:
    if not is_stopped(view, decision.rollout):
        return []
    limit = view.ds.rolling.max_failed
    more = f"more than maxFailed ({limit if limit is not None else 'not set'})"
    failed = f"new pods have failed on {decision.rollout.failure or 'nodes'}; {more}"
    if decision.targets.hash != view.update.hash:
        back = f"all nodes go back to revision {decision.targets.hash}"
        return [Wait("rolledBack", f"the newest template has failed: {failed}; {back}", old)]
    return [Wait("failed", f"the rollout has stopped: {failed}; `nodewright rollout resume` lets it go on", old)]


def _held(view: View, decision: Decision, held: list[str]) -> list[Wait]:
    """Why these nodes are left out of the rollout for now."""
    for_good = held_for_good(view, decision.rollout)
    selector = view.ds.rolling.node_selector
    elsewhere = [n for n in held if selector is not None and not selector.matches(view.nodes[n].metadata.labels)]
    kept = [node for node in held if node in for_good and node not in elsewhere]
    later = [node for node in held if node not in for_good and node not in elsewhere]
    found = []
    if later:
        found.append(_step(view, decision, later))
    if elsewhere:
        message = f"the old template stays on {_nodes(elsewhere)}: no match for rollingUpdate.nodeSelector"
        found.append(Wait("nodeSelector", message, elsewhere))
    if kept:
        message = f"the old template stays on {_nodes(kept)}: partition is {view.ds.rolling.partition}"
        found.append(Wait("partition", message, kept))
    return found


def _step(view: View, decision: Decision, later: list[str]) -> Wait:
    rollout, steps = decision.rollout, view.ds.rolling.steps
    step = steps[rollout.step] if rollout.step < len(steps) else Step()
    head = f"step {rollout.step + 1} of {len(steps)}"
    tail = f"; to follow: {_nodes(later)}" if later else ""
    if not rollout.step_ready_time:
        opened = released(view, rollout.step)
        needed = min(len(opened), scaled(step.min_available, len(opened), len(opened)))
        there = len(opened) - len(opened & set(behind(view, decision.targets)))
        state = f"{there} of its {len(opened)} nodes, with those of earlier steps, are available, {needed} must be"
        return Wait("step", f"{head}: {state}{tail}", later)
    ends = parse_rfc3339(rollout.step_ready_time) + timedelta(seconds=step.wait_seconds)
    if ends > view.now:
        return Wait("stepWait", f"{head} is ready and waits until {format_rfc3339(ends)}{tail}", later)
    return Wait("stepResume", f"{head} is ready and waits for `nodewright rollout resume`{tail}", later)


def _budget(view: View, decision: Decision, free: list[str]) -> list[Wait]:
    """Why old pods that are in the rollout's scope are not replaced now; nothing where the plan replaces them."""
    plan, rolling = decision.plan, view.ds.rolling
    going = {node for pod in (*plan.delete, *plan.in_place) if (node := pod.target_node)} | set(plan.create)
    rest = [node for node in free if node not in going and not _has_new(view, decision.targets, node)]
    found: list[Wait] = []
    if rolling.pre_pull is not None and (unpulled := [node for node in rest if node not in view.pulled]):
        errors = [f"; {node}: {view.pull_errors[node]}" for node in unpulled if node in view.pull_errors]
        at_a_time = f"{rolling.pre_pull.max_parallel} at a time{''.join(errors[:_SHOWN])}"
        message = f"the new images are pulled before on {_nodes(unpulled)}, {at_a_time}"
        found.append(Wait("prePull", message, unpulled))
        rest = [node for node in rest if node in view.pulled]
    if not rest:
        return found
    name, given, limit, used = _spent(view, decision)
    spent = sorted({*used, *(going & set(free))} - set(rest))
    if len(spent) < limit:
        message = f"old pods stay on {_nodes(rest)} until what is missing or too much elsewhere is dealt with"
        return [*found, Wait("first", message, rest)]
    value = f"{given} ({_count(limit)})" if isinstance(given, str) else str(limit)
    message = f"old pods wait their turn on {_nodes(rest)}: {name} {value} is used up by {named(spent)}"
    return [*found, Wait("budget", message, spent)]


def _spent(view: View, decision: Decision) -> tuple[str, int | str | None, int, list[str]]:
    """The budget's name, its value as given and as a count, and the nodes that count against it."""
    rolling, targets = view.ds.rolling, decision.targets
    unavailable, surge = limits(rolling, len(view.wanted))
    everywhere = sorted({*view.wanted, *view.pods})
    if surge:
        return "maxSurge", rolling.max_surge, surge, [n for n in everywhere if _is_surging(view, targets, n)]
    used = [node for node in everywhere if not _has_available(view, targets, node)]
    return "maxUnavailable", rolling.max_unavailable, unavailable, used


def _has_new(view: View, targets: Targets, node: str) -> bool:
    return any(is_current(view, targets, node, pod) for pod in _live(view, node))


def _has_available(view: View, targets: Targets, node: str) -> bool:
    """Whether the node counts as available in a rollout without surge: exactly one pod, and that is available."""
    found = pair(view, targets, node, view.pods.get(node, []))
    if found is None or (found[0] is None) == (found[1] is None):
        return False
    pod = found[0] or found[1]
    return pod is not None and is_available(view, pod)


def _is_surging(view: View, targets: Targets, node: str) -> bool:
    """Whether the node counts against maxSurge: a new pod starts beside an old one."""
    found = pair(view, targets, node, view.pods.get(node, []))
    return found is None or (found[0] is not None and found[1] is not None and not is_available(view, found[0]))
