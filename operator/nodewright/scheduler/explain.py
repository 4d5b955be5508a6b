"""Why a Pod goes where it goes: the scheduler's own plugins, asked about every node instead of for the best one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from . import cycle
from .cycle import Failure, Preparation, Scored
from .diagnosis import Diagnosis
from .objects import Node, Pod
from .plugin import Context, PluginError
from .pods import PodFactory, PodInfo
from .profile import Profile
from .state import ClusterState, NodeView


class Score(msgspec.Struct):
    """A plugin's opinion of a node: as computed, brought into 0..100, and times its weight."""

    raw: int
    normalized: int
    weight: int
    weighted: int


class NodeVerdict(msgspec.Struct, omit_defaults=True, rename="camel"):
    """One node: the first filter that rejected it and why, or the scores and their total."""

    node: str
    fits: bool
    plugin: str = ""
    reasons: list[str] = []
    scores: dict[str, Score] = {}
    total: int | None = None
    # The Pod is bound here.
    bound: bool = False
    # One of the nodes that a decision now would choose among.
    best: bool = False


class Explanation(msgspec.Struct, rename="camel"):
    """The whole answer. `message` is what a FailedScheduling event would say, "" where some node fits."""

    pod: str
    scheduler_name: str
    state: str
    node: str
    message: str
    nodes: list[NodeVerdict]


class Cluster:
    """A picture of a cluster to ask questions about; nothing of it is written back."""

    def __init__(self, nodes: list[Node], pods: list[Pod]) -> None:
        """Pods that have ended must not be among `pods`. Raises ValueError where a quantity cannot be read."""
        self.state = ClusterState(max(len(nodes), 1))
        self._factory = PodFactory()
        for node in nodes:
            self.state.set_node(node)
        for pod in pods:
            if pod.spec.node_name:
                self.state.add_pod(self._factory.info(pod), pod.spec.node_name)

    def explain(self, profile: Profile, pod: Pod) -> Explanation:
        """Ask every plugin about every node. A bound Pod is looked at as if it were not placed yet.

        Raises PluginError.
        """
        bound_to = pod.spec.node_name if self.state.remove_pod(pod.metadata.uid) is not None else ""
        if bound_to:
            pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=""))
        return explain(profile, self.state, self._factory.info(pod), bound_to)


def explain(profile: Profile, state: ClusterState, pod: PodInfo, bound_to: str = "") -> Explanation:
    """Explain a Pod that is not counted in `state`. Raises PluginError."""
    whole = NodeView(state)
    data: dict[str, Any] = {}
    preparation = cycle.prepare(profile, Context(pod, whole, data))
    ctx = Context(pod, cycle.confined_view(state, preparation), data)
    failures: list[Failure] = []
    scored: list[Scored] = []
    if preparation.rejected is None:
        ctx.feasible = cycle.run_filters(profile.filters, ctx, failures)
        if ctx.feasible.any():
            scored = cycle.run_scores(profile, ctx)
    else:
        ctx.feasible = np.zeros(len(ctx.nodes), dtype=np.bool_)
    verdicts = _left_out(state, preparation)
    verdicts.update(_rejected(ctx.nodes, failures))
    verdicts.update(_feasible(ctx, scored))
    for name, verdict in verdicts.items():
        verdict.bound = name == bound_to
    gates = [gate.name for gate in pod.spec.scheduling_gates]
    if ctx.feasible.any():
        message = ""
    elif not state.node_count:
        message = Diagnosis(0).message()
    else:
        message = cycle.diagnose(state, preparation, failures, int(ctx.nodes.present.sum())).message()
    ordered = sorted(verdicts.values(), key=lambda v: (not v.fits, -(v.total or 0), v.node))
    return Explanation(pod.key, pod.spec.scheduler_name, _state_of(pod, bound_to, gates), bound_to, message, ordered)


def _state_of(pod: PodInfo, bound_to: str, gates: list[str]) -> str:
    if bound_to:
        return f"bound to {bound_to}"
    if gates:
        return f"waiting for scheduling gates: [{' '.join(gates)}]"
    return "pending" if pod.uid else "hypothetical"


def _left_out(state: ClusterState, preparation: Preparation) -> dict[str, NodeVerdict]:
    """Nodes that no filter was asked about, because the Pod itself rules them out."""
    if preparation.rejected is not None:
        reason = preparation.rejected.reason
    elif preparation.names is not None:
        reason = cycle.confined_reason(preparation)
    else:
        return {}
    plugin = " ".join(preparation.plugins)
    return {
        node.metadata.name: NodeVerdict(node.metadata.name, False, plugin, [reason])
        for _, node in state.present_nodes()
    }


def _rejected(nodes: NodeView, failures: list[Failure]) -> dict[str, NodeVerdict]:
    verdicts: dict[str, NodeVerdict] = {}
    for failure in failures:
        for position in np.flatnonzero(failure.where):
            reasons = [
                reason.text for reason in failure.result.reasons if reason.where is None or bool(reason.where[position])
            ]
            name = nodes.name(int(position))
            verdicts[name] = NodeVerdict(name, False, failure.plugin, reasons)
    return verdicts


def _feasible(ctx: Context, scored: list[Scored]) -> dict[str, NodeVerdict]:
    verdicts: dict[str, NodeVerdict] = {}
    for position in np.flatnonzero(ctx.feasible):
        scores = {
            s.scorer.plugin.name: Score(
                int(s.raw[position]),
                int(s.normalized[position]),
                s.scorer.weight,
                int(s.normalized[position]) * s.scorer.weight,
            )
            for s in scored
        }
        name = ctx.nodes.name(int(position))
        total = sum(score.weighted for score in scores.values())
        verdicts[name] = NodeVerdict(name, True, scores=scores, total=total)
    best = max((v.total for v in verdicts.values() if v.total is not None), default=None)
    for verdict in verdicts.values():
        verdict.best = verdict.total == best
    return verdicts


__all__ = ["Cluster", "Explanation", "NodeVerdict", "PluginError", "Score", "explain"]
