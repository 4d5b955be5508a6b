"""Masks and scores of one kind of Pod, kept from one Pod to the next and corrected where the cluster changed.

The Pods of a burst are mostly alike, and placing one changes a single row. So an evaluation keeps, per signature, the
answers of all plugins for all nodes. Plugins that look at node objects only are not asked again until a node changes;
those that look at a node's Pods are asked at the rows that were touched; those that look at the whole cluster (topology
spreading, inter-pod affinity) are asked anew each time, from counts that the state keeps up to date.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from . import cycle, metrics
from .cycle import Preparation
from .plugin import Context, Plugin, Scope
from .pods import PodInfo
from .profile import Profile, Scorer
from .state import ClusterState, NodeView
from .state.arrays import BoolArray, IntArray, RowArray

INFEASIBLE = np.iinfo(np.int64).min


class ByScope(msgspec.Struct):
    """The plugins of a profile, by what their answers depend on."""

    static: list[Any]
    local: list[Any]
    wide: list[Any]


def filters_by_scope(profile: Profile) -> ByScope:
    """The filters of a profile."""
    found = ByScope([], [], [])
    for plugin in profile.filters:
        _of(found, plugin.scope).append(plugin)
    return found


def scorers_by_scope(profile: Profile) -> ByScope:
    """The scorers of a profile."""
    found = ByScope([], [], [])
    for scorer in profile.scorers:
        _of(found, scorer.plugin.scope).append(scorer)
    return found


def _of(found: ByScope, scope: Scope) -> list[Any]:
    return {Scope.NODES: found.static, Scope.NODE_PODS: found.local, Scope.CLUSTER: found.wide}[scope]


class Evaluation:
    """The answers for one signature.

    `feasible` tells per row where no filter objects; `totals` gives the weighted sums, INFEASIBLE elsewhere.
    """

    def __init__(self, profile: Profile, state: ClusterState, pod: PodInfo) -> None:
        self._profile = profile
        self._state = state
        self._filters = filters_by_scope(profile)
        self._scorers = scorers_by_scope(profile)
        self.data: dict[str, Any] = {}
        # Seconds that the last call of `prepare` took; 0 where it was not asked.
        self.preparing = 0.0
        self.feasible: BoolArray
        self._static: BoolArray
        self._local: BoolArray
        # Raw scores of plugins that need not be asked about all rows again; None until somebody asks for totals.
        self._raw: list[tuple[Scorer, IntArray]] | None = None
        self._plain: IntArray
        self._relative: IntArray
        # The totals but for scores that depend on the whole cluster; None when they have to be summed up again.
        self._base: IntArray | None = None
        self._local_objectors: list[Plugin] = []
        self._wide_objectors: list[Plugin] = []
        self._prepare(pod)
        self._evaluate(pod)

    @property
    def objectors(self) -> list[Plugin]:
        """The filters of Pods at nodes that have anything to say about this Pod."""
        return self._local_objectors + self._wide_objectors

    def passed_by_nodes(self, rows: RowArray) -> BoolArray:
        """At which rows of the cluster state no filter of node objects objects."""
        if self.nodes.rows is None:
            return self._static[rows]
        return np.isin(rows, self.nodes.rows[self._static])

    @property
    def is_confined(self) -> bool:
        """Whether the Pod looks at some nodes only; such answers are few and not worth keeping."""
        return self.preparation.names is not None or self.preparation.rejected is not None

    def context(self, pod: PodInfo, feasible: BoolArray | None = None) -> Context:
        """A context over the evaluated nodes."""
        ctx = Context(pod, self.nodes, self.data)
        if feasible is not None:
            ctx.feasible = feasible
        return ctx

    def refresh(self, pod: PodInfo) -> None:
        """Bring the answers up to date with the cluster. Raises PluginError; discard the evaluation then."""
        state = self._state
        self.preparing = 0.0
        if self._world_generation != state.world_generation:
            self._prepare(pod)
            self._evaluate(pod)
            return
        if self._node_generation != state.node_generation or self.nodes.size != state.height:
            self._evaluate(pod)
            return
        passed = state.pod_generation - self._pod_generation
        if not passed:
            return
        # Reading a long journal costs more than asking about all rows again.
        touched = state.touched_since(self._pod_generation) if passed <= state.height else None
        if touched is None or len(touched) * 4 > state.height + 16:
            self._evaluate(pod)
        else:
            self._correct(pod, touched)

    def totals(self, pod: PodInfo, feasible: BoolArray | None = None) -> IntArray:
        """Weighted sums, INFEASIBLE where a filter objects; with `feasible`, as if only those nodes had passed.

        Read-only. Raises PluginError.
        """
        if feasible is not None:
            base = self._sum(pod, feasible)
        else:
            feasible = self.feasible
            if self._base is None:
                self._base = self._sum(pod, feasible)
            base = self._base
        wide = self._score_widely(pod, feasible)
        return base if wide is None else np.where(feasible, base + wide, INFEASIBLE)

    # --- preparing -----------------------------------------------------------------------------------------------

    def _prepare(self, pod: PodInfo) -> None:
        self._world_generation = self._state.world_generation
        self.data.clear()
        started = metrics.now()
        whole = Context(pod, NodeView(self._state), self.data)
        self.preparation: Preparation = cycle.prepare(self._profile, whole)
        self.preparing = metrics.now() - started

    # --- all rows ------------------------------------------------------------------------------------------------

    def _evaluate(self, pod: PodInfo) -> None:
        state = self._state
        self._node_generation = state.node_generation
        self._pod_generation = state.pod_generation
        self.nodes = cycle.confined_view(state, self.preparation)
        self._raw = None
        self._base = None
        if self.preparation.rejected is not None:
            self._static = np.zeros(len(self.nodes), dtype=np.bool_)
            self._local = self.feasible = self._static
            return
        ctx = self.context(pod)
        self._static = cycle.run_filters(self._filters.static, ctx)
        self._local_objectors = []
        self._local = self._static & cycle.run_filters(self._filters.local, ctx, answered=self._local_objectors)
        self.feasible = self._local
        self._ask_widely(pod)

    def _ask_widely(self, pod: PodInfo) -> bool:
        """Ask the filters that look at the whole cluster. True when feasibility may have changed by them."""
        before = self.feasible
        self.feasible = self._local
        self._wide_objectors = []
        for plugin in self._filters.wide:
            result = cycle.run_filter(plugin, self.context(pod))
            if result is not None:
                self._wide_objectors.append(plugin)
                self.feasible = self.feasible & result.ok
        if self.feasible is self._local:
            return before is not self._local
        return not np.array_equal(before, self.feasible)

    # --- touched rows --------------------------------------------------------------------------------------------

    def _correct(self, pod: PodInfo, touched: set[int]) -> None:
        state = self._state
        self._pod_generation = state.pod_generation
        rows: RowArray = np.fromiter(touched, dtype=np.intp, count=len(touched))
        ctx = Context(pod, NodeView(state, rows), self.data)
        local = self._static[rows] & cycle.run_filters(self._filters.local, ctx)
        changed = bool((local != self._local[rows]).any())
        self._local[rows] = local
        changed |= self._ask_widely(pod)
        if self._raw is not None:
            ctx.feasible = self.feasible[rows]
            changed |= self._correct_scores(ctx, rows)
        if changed or self._base is None:
            self._base = None  # summed up when somebody asks: a Pod that fits nowhere never does
        else:
            sums = self._plain[rows] + self._relative[rows]
            self._base[rows] = np.where(self.feasible[rows], sums, INFEASIBLE)

    def _correct_scores(self, ctx: Context, rows: RowArray) -> bool:
        """Ask again at the touched rows. True when scores relative to other nodes may have changed."""
        assert self._raw is not None
        relative_changed = False
        plain = np.zeros(len(ctx.nodes), dtype=np.int64)
        for scorer, raw in self._raw:
            if scorer.plugin.scope == Scope.NODE_PODS:
                fresh = cycle.run_score(scorer, ctx)
                raw[rows] = 0 if fresh is None else fresh
                relative_changed |= scorer.normalizes
            if not scorer.normalizes:
                plain += cycle.normalize(scorer, ctx, raw[rows]) * scorer.weight
        self._plain[rows] = plain
        return relative_changed

    # --- sums ----------------------------------------------------------------------------------------------------

    def _sum(self, pod: PodInfo, feasible: BoolArray) -> IntArray:
        """Plain scores, which stand for themselves, and relative ones, which depend on all feasible nodes."""
        ctx = self.context(pod, feasible)
        if self._raw is None:
            self._score(ctx)
            assert self._raw is not None
        relative = np.zeros(len(self.nodes), dtype=np.int64)
        for scorer, raw in self._raw:
            if scorer.normalizes:
                relative += cycle.normalize(scorer, ctx, raw) * scorer.weight
        self._relative = relative
        return np.where(feasible, self._plain + relative, INFEASIBLE)

    def _score(self, ctx: Context) -> None:
        found: list[tuple[Scorer, IntArray]] = []
        plain = np.zeros(len(self.nodes), dtype=np.int64)
        for scorer in (*self._scorers.static, *self._scorers.local):
            raw = cycle.run_score(scorer, ctx)
            if raw is None:
                continue
            # Rows of the others are corrected in place, and the plugin may keep the array it returned.
            found.append((scorer, raw if scorer.plugin.scope == Scope.NODES else raw.copy()))
            if not scorer.normalizes:
                plain += cycle.normalize(scorer, ctx, raw) * scorer.weight
        # Kept only when all have answered: where one raises, the next Pod asks all of them again.
        self._raw, self._plain = found, plain

    def _score_widely(self, pod: PodInfo, feasible: BoolArray) -> IntArray | None:
        total: IntArray | None = None
        ctx: Context | None = None
        for scorer in self._scorers.wide:
            if ctx is None:
                ctx = self.context(pod, feasible)
            raw = cycle.run_score(scorer, ctx)
            if raw is not None:
                part = cycle.normalize(scorer, ctx, raw) * scorer.weight
                total = part if total is None else total + part
        return total
