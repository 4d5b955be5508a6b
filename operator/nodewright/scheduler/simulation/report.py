"""What came out of a run: Pod by Pod, who was evicted, and how full nodes are before and after."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from .. import wording
from ..objects import Pod
from ..state import ClusterState
from .answer import Evicted, NodeUse, PodOutcome, SimulationResult, Use
from .run import Run

SHOWN = ("cpu", "memory")


class Planned(msgspec.Struct):
    """A Pod to be placed, and where it came from."""

    pod: Pod
    source: str
    workload: str = ""


class Level(msgspec.Struct):
    """What is requested at a node and what there is, by resource (`pods` among them)."""

    requested: dict[str, int]
    allocatable: dict[str, int]


def levels(state: ClusterState) -> dict[str, Level]:
    """How full each node is now."""
    found: dict[str, Level] = {}
    for row, node in state.present_nodes():
        level = Level({"pods": int(state.pod_count[row])}, {"pods": int(state.pod_limit[row])})
        for name in SHOWN:
            index = state.resource(name)
            level.requested[name] = int(state.requested[index, row])
            level.allocatable[name] = int(state.allocatable[index, row])
        found[node.metadata.name] = level
    return found


def report(
    run: Run, plans: Iterable[Planned], before: dict[str, Level], after: dict[str, Level], existing: Collection[str]
) -> SimulationResult:
    """The result of a run; `existing` are the names of the nodes that are not made up."""
    outcomes = [_outcome(run, plan) for plan in plans]
    tried = {plan.pod.metadata.uid for plan in plans}
    evicted = [
        Evicted(pod=e.victim.key, node=e.node, by=e.by.key, priority=e.victim.priority, violates=e.violates)
        for e in run.evictions
        if e.victim.uid not in tried
    ]
    placed = sum(outcome.status == "placed" for outcome in outcomes)
    nodes = [
        NodeUse(
            node=name,
            simulated=name not in existing,
            **{resource: _use(resource, before[name], level) for resource in level.requested},
        )
        for name, level in sorted(after.items())
    ]
    return SimulationResult(placed=placed, pending=len(outcomes) - placed, pods=outcomes, evicted=evicted, nodes=nodes)


def _outcome(run: Run, plan: Planned) -> PodOutcome:
    uid = plan.pod.metadata.uid
    outcome = PodOutcome(
        pod=plan.pod.key,
        source=plan.source,
        workload=plan.workload,
        status="pending",
        priority=plan.pod.spec.priority,
    )
    outcome.victims = [eviction.victim.key for eviction in run.evictions if eviction.by.uid == uid]
    eviction = next((e for e in run.evictions if e.victim.uid == uid), None)
    if eviction is not None:
        outcome.status, outcome.node, outcome.evicted_by = "evicted", eviction.node, eviction.by.key
    elif node := plan.pod.spec.node_name or run.nodes.get(uid, ""):
        outcome.status, outcome.node = "placed", node
    else:
        outcome.message = run.messages.get(uid, "")
    return outcome


def _use(resource: str, before: Level, after: Level) -> Use:
    return Use(
        before=wording.amount(resource, before.requested[resource]),
        after=wording.amount(resource, after.requested[resource]),
        allocatable=wording.amount(resource, after.allocatable[resource]),
    )
