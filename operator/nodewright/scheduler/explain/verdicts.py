"""What the plugins say of each node about one Pod."""

from __future__ import annotations

import numpy as np

from .. import cycle
from ..cycle import Failure, Scored
from ..evaluation import Evaluation
from ..evaluator import Evaluator, Rejection
from ..placing import postfilter_message
from ..plugin import Context
from ..pods import PodInfo
from ..preemption.budgets import Budgets
from ..profile import Profile
from ..state import ClusterState, NodeView
from ..state.arrays import BoolArray
from . import obstacles
from .answer import Explanation, NodeVerdict, Obstacle, Score
from .evictions import preemption
from .obstacles import Obstacles, Rank


def explain(
    profile: Profile,
    state: ClusterState,
    pod: PodInfo,
    bound_to: str = "",
    *,
    budgets: Budgets | None = None,
    detailed: int | None = None,
) -> Explanation:
    """Explain a Pod that is not counted in `state`. Without `budgets`, preemption is left out. Raises PluginError.

    `detailed` None: all there is to say. A number: details of so many of the nodes that reject the Pod, and only as
    many candidates for preemption as the scheduler looks at.
    """
    evaluator = Evaluator(profile, state)
    outcome = evaluator.place(pod)
    answer = Explanation(pod.key, pod.spec.scheduler_name, _state_of(pod, bound_to), bound_to, "", [], pod.priority)
    if state.node_count:
        asked = _Asked(profile, state, pod)
        answer.nodes = asked.verdicts(detailed)
        answer.missing = asked.everywhere()
    for verdict in answer.nodes:
        verdict.bound = verdict.node == bound_to
    if isinstance(outcome, Rejection):
        if budgets is not None and state.node_count:
            complete = detailed is None
            answer.preemption, refused = preemption(state, evaluator, pod, outcome, budgets, complete=complete)
            outcome.diagnosis.postfilter_message = postfilter_message(refused)
        answer.message = outcome.diagnosis.message()
    return answer


def _state_of(pod: PodInfo, bound_to: str) -> str:
    gates = [gate.name for gate in pod.spec.scheduling_gates]
    if bound_to:
        return f"bound to {bound_to}"
    if pod.pod.metadata.deletion_timestamp is not None:
        return "being deleted: it is not scheduled any more"
    if gates:
        return f"waiting for scheduling gates: [{' '.join(gates)}]"
    if not pod.uid:
        return "hypothetical"
    nominated = pod.pod.status.nominated_node_name
    return f"pending, nominated to {nominated}" if nominated else "pending"


class _Asked:
    """One Pod, and all plugins' answers for all nodes."""

    def __init__(self, profile: Profile, state: ClusterState, pod: PodInfo) -> None:
        self._profile = profile
        self._state = state
        self._pod = pod
        self._evaluation = evaluation = Evaluation(profile, state, pod)
        self._whole = Context(pod, NodeView(state), evaluation.data)
        self._ctx = evaluation.context(pod)
        self._failures: list[Failure] = []
        self._obstacles: Obstacles | None = None
        if evaluation.preparation.rejected is None:
            cycle.run_filters(profile.filters, self._ctx, self._failures)
            self._obstacles = Obstacles(profile, self._whole)
        self._kept = self._find_kept()

    def everywhere(self) -> list[Obstacle]:
        """What rules all nodes out."""
        preparation = self._evaluation.preparation
        if preparation.rejected is None:
            return []
        plugin = " ".join(preparation.plugins)
        return [obstacles.anywhere(self._profile, self._whole, plugin, preparation.rejected.reason)]

    def verdicts(self, detailed: int | None) -> list[NodeVerdict]:
        """All nodes: those that fit by total, then the others, those that lack least first."""
        fitting = self._fitting()
        rejected = self._left_out()
        rejected.update(self._rejected())
        rejected.update(self._kept)
        others = [v for name, v in rejected.items() if name not in fitting]
        others.sort(key=lambda verdict: (*self._rank(verdict), verdict.node))
        for index, verdict in enumerate(others):
            if self._obstacles is not None and not verdict.missing:
                position = self._state.rows[verdict.node]
                verdict.missing = self._obstacles.at(position, detailed=detailed is None or index < detailed)
        return [*sorted(fitting.values(), key=lambda v: (-(v.total or 0), v.node)), *others]

    # --- nodes that fit ------------------------------------------------------------------------------------------

    def _feasible(self) -> BoolArray:
        feasible: BoolArray = self._evaluation.feasible.copy()
        for node in self._kept:
            feasible[self._position(node)] = False
        return feasible

    def _fitting(self) -> dict[str, NodeVerdict]:
        ctx, feasible = self._ctx, self._feasible()
        if not feasible.any():
            return {}
        ctx.feasible = feasible
        scored = cycle.run_scores(self._profile, ctx)
        found: dict[str, NodeVerdict] = {}
        for position in np.flatnonzero(feasible):
            scores = {s.scorer.plugin.name: _score(s, int(position)) for s in scored}
            total = sum(score.weighted for score in scores.values())
            name = ctx.nodes.name(int(position))
            found[name] = NodeVerdict(node=name, fits=True, scores=scores, total=total)
        nominated = self._state.nominated.node_of(self._pod.uid)
        best = max(verdict.total or 0 for verdict in found.values())
        for name, verdict in found.items():
            verdict.nominated = name == nominated
            # A nominated node is not compared with others.
            verdict.best = verdict.nominated if nominated in found else verdict.total == best
        return found

    # --- nodes that do not ---------------------------------------------------------------------------------------

    def _rejected(self) -> dict[str, NodeVerdict]:
        found: dict[str, NodeVerdict] = {}
        for failure in self._failures:
            for position in np.flatnonzero(failure.where):
                name = self._ctx.nodes.name(int(position))
                reasons = obstacles.reasons_at(failure, int(position))
                found[name] = NodeVerdict(node=name, fits=False, plugin=failure.plugin, reasons=reasons)
        return found

    def _left_out(self) -> dict[str, NodeVerdict]:
        """Nodes that no filter was asked about, because the Pod itself rules them out."""
        preparation = self._evaluation.preparation
        if preparation.rejected is not None:
            reason = preparation.rejected.reason
        elif preparation.names is not None:
            reason = cycle.confined_reason(preparation)
        else:
            return {}
        plugin = " ".join(preparation.plugins)
        names = [node.metadata.name for _, node in self._state.present_nodes()]
        return {name: NodeVerdict(node=name, fits=False, plugin=plugin, reasons=[reason]) for name in names}

    def _find_kept(self) -> dict[str, NodeVerdict]:
        """Nodes that pass only as long as Pods which were nominated there are not there."""
        found: dict[str, NodeVerdict] = {}
        for node, ahead in self._state.nominated.ahead_of(self._pod):
            position = self._position(node)
            if position is None or not self._evaluation.feasible[position]:
                continue
            missing = obstacles.beside(self._profile, self._state, self._evaluation, self._pod, node, ahead)
            if missing:
                names = [f"{other.key} (priority {other.priority})" for other in ahead]
                first = missing[0]
                found[node] = NodeVerdict(
                    node=node, fits=False, plugin=first.plugin, reasons=first.reasons, missing=missing, kept_for=names
                )
        return found

    def _rank(self, verdict: NodeVerdict) -> Rank:
        if verdict.kept_for or self._obstacles is None:
            return len(verdict.missing), 0, 0.0
        return self._obstacles.rank(self._state.rows[verdict.node])

    def _position(self, node: str) -> int | None:
        """Where the node is among those that were asked about."""
        row = self._state.rows.get(node)
        rows = self._ctx.nodes.rows
        if row is None or rows is None:
            return row
        found = np.flatnonzero(rows == row)
        return int(found[0]) if len(found) else None


def _score(scored: Scored, position: int) -> Score:
    normalized, weight = int(scored.normalized[position]), scored.scorer.weight
    return Score(int(scored.raw[position]), normalized, weight, normalized * weight)


__all__ = ["explain"]
