"""Masks and scores of one kind of Pod, kept from one Pod to the next and corrected where the cluster changed.

The Pods of a burst are mostly alike, and placing one changes a single row. So the evaluator keeps, per signature, the
answers of all plugins for all nodes, and asks again only the plugins that look at a node's Pods, and only at the
rows that were touched. A change of any node object discards everything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import msgspec
import numpy as np

from . import cycle
from .diagnosis import Diagnosis
from .plugin import Context, Scope
from .pods import PodInfo
from .profile import Profile, Scorer
from .state import ClusterState, NodeView
from .state.arrays import BoolArray, IntArray

INFEASIBLE = np.iinfo(np.int64).min


class Placement(msgspec.Struct):
    """Where a Pod goes. `evaluated` and `feasible` count nodes."""

    node: str
    evaluated: int
    feasible: int


class Evaluation:
    """The answers for one signature. `totals` is the weighted sum per row, INFEASIBLE where a filter objects."""

    def __init__(self, profile: Profile, state: ClusterState, pod: PodInfo) -> None:
        self._profile = profile
        self._state = state
        self._data: dict[str, Any] = {}
        self._raw: list[tuple[Scorer, IntArray]] = []
        self.preparation = cycle.prepare(profile, Context(pod, NodeView(state), self._data))
        self._evaluate(pod)

    def refresh(self, pod: PodInfo) -> None:
        """Bring the answers up to date with the cluster. Raises PluginError; discard the evaluation then."""
        state = self._state
        # Reading a long journal costs more than asking about all rows again.
        is_recent = state.pod_generation - self._pod_generation <= state.height
        touched = state.touched_since(self._pod_generation) if is_recent else None
        if (
            touched is None
            or self._node_generation != state.node_generation
            or self._nodes.size != state.height
            or len(touched) * 4 > state.height + 16
            or (touched and self._profile.has_cluster_scope)
        ):
            self._evaluate(pod)
        elif touched:
            self._correct(pod, touched)

    def _view(self) -> NodeView:
        names = self.preparation.names
        if names is None:
            return NodeView(self._state)
        if self.preparation.rejected is not None:
            return NodeView(self._state, np.array([], dtype=np.intp))
        rows = sorted(row for name in names if (row := self._state.rows.get(name)) is not None)
        return NodeView(self._state, np.array(rows, dtype=np.intp))

    @property
    def is_confined(self) -> bool:
        """Whether the Pod looks at some nodes only; such answers are few and not worth keeping."""
        return self.preparation.names is not None or self.preparation.rejected is not None

    def context(self, pod: PodInfo) -> Context:
        """A context over the evaluated nodes, to diagnose with."""
        return Context(pod, self._nodes, self._data)

    # --- all rows ------------------------------------------------------------------------------------------------

    def _evaluate(self, pod: PodInfo) -> None:
        state = self._state
        self._node_generation = state.node_generation
        self._pod_generation = state.pod_generation
        self._nodes = NodeView(state) if not self.is_confined else self._view()
        ctx = self.context(pod)
        by_nodes = [p for p in self._profile.filters if p.scope == Scope.NODES]
        by_pods = [p for p in self._profile.filters if p.scope != Scope.NODES]
        self._by_pods = by_pods
        if self.preparation.rejected is not None:
            self._static: BoolArray = np.zeros(len(self._nodes), dtype=np.bool_)
            self._feasible = self._static
        else:
            self._static = cycle.run_filters(by_nodes, ctx)
            self._feasible = self._static & cycle.run_filters(by_pods, ctx)
        self._score(ctx)

    def _score(self, ctx: Context) -> None:
        ctx.feasible = self._feasible
        self._raw = []
        size = len(self._nodes)
        self._plain: IntArray = np.zeros(size, dtype=np.int64)
        if not self._feasible.any():
            self._relative = self._plain
            self.totals: IntArray = np.full(size, INFEASIBLE, dtype=np.int64)
            return
        for scorer in self._profile.scorers:
            raw = cycle.run_score(scorer, ctx)
            if raw is not None:
                # Rows of the others are corrected in place, and the plugin may keep the array it returned.
                self._raw.append((scorer, raw if scorer.plugin.scope == Scope.NODES else raw.copy()))
                if not scorer.normalizes:
                    self._plain += cycle.normalize(scorer, ctx, raw) * scorer.weight
        self._sum(ctx)

    def _sum(self, ctx: Context) -> None:
        """Totals from plain scores, which stand for themselves, and relative ones, which depend on all nodes."""
        self._relative = np.zeros(len(self._nodes), dtype=np.int64)
        for scorer, raw in self._raw:
            if scorer.normalizes:
                self._relative += cycle.normalize(scorer, ctx, raw) * scorer.weight
        self.totals = np.where(self._feasible, self._plain + self._relative, INFEASIBLE)

    # --- touched rows --------------------------------------------------------------------------------------------

    def _correct(self, pod: PodInfo, touched: set[int]) -> None:
        state = self._state
        self._pod_generation = state.pod_generation
        rows: Any = np.fromiter(touched, dtype=np.intp, count=len(touched))
        nodes = NodeView(state, rows)
        ctx = Context(pod, nodes, self._data)
        feasible = self._static[rows] & cycle.run_filters(self._by_pods, ctx)
        had_any = bool(self._raw)
        changed = bool((feasible != self._feasible[rows]).any())
        self._feasible[rows] = feasible
        if not had_any:
            # Nothing was feasible when the scores were due, so there are none to correct.
            if changed:
                self._score(self.context(pod))
            return
        ctx.feasible = feasible
        relative_changed = self._correct_scores(ctx, rows)
        if changed or relative_changed:
            whole = self.context(pod)
            whole.feasible = self._feasible
            self._sum(whole)
        else:
            self.totals[rows] = np.where(feasible, self._plain[rows] + self._relative[rows], INFEASIBLE)

    def _correct_scores(self, ctx: Context, rows: Any) -> bool:
        relative_changed = False
        plain = np.zeros(len(ctx.nodes), dtype=np.int64)
        for scorer, raw in self._raw:
            if scorer.plugin.scope != Scope.NODES:
                fresh = cycle.run_score(scorer, ctx)
                raw[rows] = 0 if fresh is None else fresh
                relative_changed |= scorer.normalizes
            if not scorer.normalizes:
                plain += raw[rows] * scorer.weight
        self._plain[rows] = plain
        return relative_changed


class Evaluator:
    """Finds nodes for Pods of one profile; remembers the answers for the `size` most recent signatures."""

    def __init__(self, profile: Profile, state: ClusterState, size: int = 16) -> None:
        self.profile = profile
        self._state = state
        self._size = size
        self._kept: OrderedDict[Hashable, Evaluation] = OrderedDict()
        self._turn = 0

    def place(self, pod: PodInfo) -> Placement | Diagnosis:
        """The best node for the Pod, or why there is none. Changes nothing. Raises PluginError."""
        if not self._state.node_count:
            return Diagnosis(0)
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
        return self._choose(evaluation, pod)

    def _choose(self, evaluation: Evaluation, pod: PodInfo) -> Placement | Diagnosis:
        totals = evaluation.totals
        best = totals.max(initial=INFEASIBLE)
        if best == INFEASIBLE:
            return cycle.diagnose(self.profile, evaluation.context(pod), evaluation.preparation)
        # Equally good nodes take turns: Pods that barely change a score would otherwise pile up on the first.
        ties = np.flatnonzero(totals == best)
        self._turn += 1
        nodes = evaluation.context(pod).nodes
        name = nodes.name(int(ties[self._turn % len(ties)]))
        return Placement(name, len(nodes), int(np.count_nonzero(totals != INFEASIBLE)))
