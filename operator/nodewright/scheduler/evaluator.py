"""The best node for a Pod, or why there is none: evaluations, and the room that nominated Pods are owed."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable

import msgspec
import numpy as np

from . import cycle, metrics
from .cycle import Failure
from .diagnosis import Diagnosis
from .evaluation import INFEASIBLE, Evaluation
from .plugin import Context, Scope
from .pods import PodInfo
from .profile import Profile
from .room import Ahead, Room, room_only
from .state import ClusterState, NodeView
from .state.arrays import BoolArray


class Placement(msgspec.Struct):
    """Where a Pod goes. `evaluated` and `feasible` count nodes."""

    node: str
    evaluated: int
    feasible: int


class Rejection(msgspec.Struct):
    """No node: why, and the rows where evicting Pods might help (upstream: Unschedulable, not Unresolvable)."""

    diagnosis: Diagnosis
    evaluation: Evaluation | None
    resolvable: list[int]


class Claims(msgspec.Struct):
    """Positions that pass, but not once the Pods nominated there are: why, and where eviction would not help."""

    where: BoolArray
    hopeless: BoolArray
    reasons: Counter[str]
    plugins: set[str]


class Evaluator:
    """Finds nodes for Pods of one profile; remembers the answers for the `size` most recent signatures."""

    def __init__(self, profile: Profile, state: ClusterState, size: int = 16) -> None:
        self.profile = profile
        self._state = state
        self._size = size
        self._kept: OrderedDict[Hashable, Evaluation] = OrderedDict()
        # Those that have to be asked when Pods come or go: the first that looks at Pods, and all after it, since where
        # one objected, nothing is known of what comes later.
        first = next((i for i, p in enumerate(profile.filters) if p.scope != Scope.NODES), len(profile.filters))
        self.later = profile.filters[first:]
        self._turn = 0
        self._times = metrics.PointTimes(profile.scheduler_name)

    def place(self, pod: PodInfo) -> Placement | Rejection:
        """The best node for the Pod, or why there is none. Changes nothing. Raises PluginError."""
        if not self._state.node_count:
            return Rejection(Diagnosis(0), None, [])
        started = metrics.now()
        evaluation = self._evaluation(pod)
        feasible = evaluation.feasible
        position = self._nominated_position(evaluation, pod)
        claims = self._claims(evaluation, pod) if position is None else None
        if claims is not None:
            feasible = feasible & ~claims.where
        found = bool(feasible.any())
        filtered = self._observe_filters(started, evaluation, found)
        if not found:
            return self._reject(evaluation, pod, claims)
        if position is None:
            totals = evaluation.totals(pod, feasible if claims is not None else None)
            self._times.scored.observe(metrics.now() - filtered)
            # Equally good nodes take turns: Pods that barely change a score would otherwise pile up on the first.
            ties = np.flatnonzero(totals == totals.max())
            self._turn += 1
            position = int(ties[self._turn % len(ties)])
        return Placement(evaluation.nodes.name(position), len(evaluation.nodes), int(np.count_nonzero(feasible)))

    def failures_at(self, evaluation: Evaluation, pod: PodInfo, row: int) -> list[Failure]:
        """What keeps the Pod off one row as things are now, without nominated Pods first, then beside them."""
        failures: list[Failure] = []
        cycle.run_filters(self.later, self._context_of(evaluation, pod, row), failures)
        ahead = self._ahead_at(pod, row)
        return failures if failures or not ahead else self._failures_beside(evaluation, pod, row, ahead)

    def fits(self, evaluation: Evaluation, pod: PodInfo, row: int) -> bool:
        """Whether the Pod passes all filters at one row as things are now, room for nominated Pods included.

        For trying things out: filters before the first that looks at Pods are not asked, they have passed. Raises
        PluginError.
        """
        if not cycle.run_filters(self.later, self._context_of(evaluation, pod, row))[0]:
            return False
        ahead = self._ahead_at(pod, row)
        return not ahead or not self._failures_beside(evaluation, pod, row, ahead)

    # --- inside --------------------------------------------------------------------------------------------------

    def _evaluation(self, pod: PodInfo) -> Evaluation:
        if not self.profile.shares(pod):
            return Evaluation(self.profile, self._state, pod)
        signature = pod.signature(self.profile.reads)
        evaluation = self._kept.pop(signature, None)
        if evaluation is None:
            evaluation = Evaluation(self.profile, self._state, pod)
        else:
            evaluation.refresh(pod)  # when this raises, the evaluation is gone from the cache, as it must be
        if not evaluation.is_confined:
            self._kept[signature] = evaluation
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return evaluation

    def _observe_filters(self, started: float, evaluation: Evaluation, found: bool) -> float:
        """Take the time of preparing and filtering; scores at touched rows, corrected meanwhile, count as filtering."""
        now, times, preparing = metrics.now(), self._times, evaluation.preparing
        if preparing:
            rejected = evaluation.preparation.rejected is not None
            (times.pre_filter_failed if rejected else times.pre_filtered).observe(preparing)
        (times.filtered if found else times.filter_failed).observe(now - started - preparing)
        return now

    def _nominated_position(self, evaluation: Evaluation, pod: PodInfo) -> int | None:
        """The node that the Pod was nominated to, if it passes: it is not compared with others."""
        node = self._state.nominated.node_of(pod.uid)
        row = self._state.rows.get(node) if node else None
        position = None if row is None else _position(evaluation.nodes, row)
        if row is None or position is None or not evaluation.feasible[position]:
            return None
        ahead = self._ahead_at(pod, row)
        return None if ahead and self._failures_beside(evaluation, pod, row, ahead) else position

    def _claims(self, evaluation: Evaluation, pod: PodInfo) -> Claims | None:
        """What nominated Pods are owed, None where it keeps this Pod off no node that passes."""
        if not len(self._state.nominated):
            return None
        plugin = room_only(evaluation, self.later) if evaluation.nodes.rows is None else None
        if plugin is not None:
            room = Room(self._state, plugin, pod)
            ahead = room.ahead()
            if not ahead.has_terms:
                return self._claims_of_room(evaluation, room, ahead, plugin.name)
        return self._claims_one_by_one(evaluation, pod)

    def _claims_of_room(self, evaluation: Evaluation, room: Room, ahead: Ahead, plugin: str) -> Claims | None:
        state, height = self._state, self._state.height
        where = evaluation.feasible & (ahead.pods > 0)
        if not where.any():
            return None
        requested = {name: state.requested[state.resource(name), :height] for name in room.wanted}
        short = room.shortages(ahead, state.pod_count[:height], requested)
        where &= np.logical_or.reduce([mask for _, mask in short])
        if not where.any():
            return None
        reasons = Counter({reason: int(np.count_nonzero(mask & where)) for reason, mask in short})
        return Claims(where, np.zeros_like(where), +reasons, {plugin})

    def _claims_one_by_one(self, evaluation: Evaluation, pod: PodInfo) -> Claims | None:
        empty = np.zeros(len(evaluation.nodes), dtype=np.bool_)
        claims = Claims(empty, empty.copy(), Counter(), set())
        for node, ahead in self._state.nominated.ahead_of(pod):
            row = self._state.rows.get(node)
            position = None if row is None else _position(evaluation.nodes, row)
            if row is None or position is None or not evaluation.feasible[position]:
                continue
            failures = self._failures_beside(evaluation, pod, row, ahead)
            if failures:
                claims.where[position] = True
                claims.hopeless[position] = any(bool(cycle.unresolvable(failure)[0]) for failure in failures)
                claims.reasons.update(list(cycle.count_reasons(failures)))
                claims.plugins.update(failure.plugin for failure in failures)
        return claims if claims.plugins else None

    def _failures_beside(self, evaluation: Evaluation, pod: PodInfo, row: int, ahead: list[PodInfo]) -> list[Failure]:
        node = self._state.names[row]
        for other in ahead:
            self._state.add_pod(other, node)
        try:
            failures: list[Failure] = []
            cycle.run_filters(self.later, self._context_of(evaluation, pod, row), failures)
            return failures
        finally:
            for other in ahead:
                self._state.remove_pod(other.uid)

    def _ahead_at(self, pod: PodInfo, row: int) -> list[PodInfo]:
        return self._state.nominated.ahead_at(self._state.names[row], pod)

    def _context_of(self, evaluation: Evaluation, pod: PodInfo, row: int) -> Context:
        return Context(pod, NodeView(self._state, np.array([row], dtype=np.intp)), evaluation.data)

    def _reject(self, evaluation: Evaluation, pod: PodInfo, claims: Claims | None) -> Rejection:
        ctx, preparation = evaluation.context(pod), evaluation.preparation
        if preparation.rejected is not None:
            return Rejection(cycle.diagnose(self._state, preparation, []), evaluation, [])
        failures: list[Failure] = []
        cycle.run_filters(self.profile.filters, ctx, failures)
        hopeless = np.zeros(len(ctx.nodes), dtype=np.bool_)
        for failure in failures:
            hopeless |= cycle.unresolvable(failure)
        diagnosis = cycle.diagnose(self._state, preparation, failures, int(ctx.nodes.present.sum()))
        if claims is not None:
            diagnosis.reasons.update(claims.reasons)
            diagnosis.plugins |= claims.plugins
            hopeless |= claims.hopeless
        resolvable = np.flatnonzero(ctx.nodes.present & ~hopeless)
        rows = resolvable if ctx.nodes.rows is None else ctx.nodes.rows[resolvable]
        return Rejection(diagnosis, evaluation, rows.tolist())


def _position(nodes: NodeView, row: int) -> int | None:
    if nodes.rows is None:
        return row
    found = np.flatnonzero(nodes.rows == row)
    return int(found[0]) if len(found) else None


__all__ = ["INFEASIBLE", "Evaluator", "Placement", "Rejection"]
