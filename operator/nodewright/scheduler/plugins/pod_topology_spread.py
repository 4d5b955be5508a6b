"""PodTopologySpread: matching Pods are spread evenly over zones, racks or nodes."""

from __future__ import annotations

import msgspec
import numpy as np

from nodewright.kube.api.meta import LabelSelector, LabelSelectorRequirement

from ..events import Event
from ..objects import TopologySpreadConstraint
from ..plugin import MAX_SCORE, Context, FilterResult, Plugin, Reason, Rejected, Scope
from ..pods import PodInfo, PodPart
from ..state import ClusterState
from ..state.arrays import BoolArray, IntArray
from .default_constraints import check_default_constraints
from .spread_details import skews
from .spreading import HOSTNAME, Constraint, SpreadPlan

REASON_SKEW = "node(s) didn't match pod topology spread constraints"
REASON_LABEL = f"{REASON_SKEW} (missing required label)"
ZONE = "topology.kubernetes.io/zone"

SYSTEM_DEFAULTS = (
    TopologySpreadConstraint(max_skew=3, topology_key=HOSTNAME, when_unsatisfiable="ScheduleAnyway"),
    TopologySpreadConstraint(max_skew=5, topology_key=ZONE, when_unsatisfiable="ScheduleAnyway"),
)


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """PodTopologySpreadArgs: the constraints of Pods that have none of their own."""

    default_constraints: list[TopologySpreadConstraint] = []
    defaulting_type: str = "System"


class PodTopologySpread(Plugin):
    """Rejects nodes that would make a DoNotSchedule constraint's skew too large; prefers the emptier domains."""

    name = "PodTopologySpread"
    weight = 2
    scope = Scope.CLUSTER
    reads = PodPart.SPEC | PodPart.NAMESPACE | PodPart.LABELS | PodPart.OWNER
    events = (
        Event.POD_ADD
        | Event.POD_DELETE
        | Event.POD_LABEL
        | Event.NODE_ADD
        | Event.NODE_DELETE
        | Event.NODE_LABEL
        | Event.NODE_TAINT
    )
    args_type = Args

    def __init__(self, args: Args | None = None) -> None:
        args = args or Args()
        check_default_constraints(args.defaulting_type, args.default_constraints)
        self._system = args.defaulting_type == "System"
        self._defaults = SYSTEM_DEFAULTS if self._system else tuple(args.default_constraints)

    def prepare(self, ctx: Context) -> Rejected | None:
        """Work out which constraints hold for the Pod."""
        ctx.data[self.name] = self._plan(ctx)
        return None

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods without DoNotSchedule constraints."""
        plan: SpreadPlan | None = ctx.data[self.name]
        if plan is None or not plan.hard:
            return None
        nodes, state = ctx.nodes, ctx.nodes.state
        alive = np.ones(len(nodes), dtype=np.bool_)
        unlabelled = np.zeros(len(nodes), dtype=np.bool_)
        for constraint in plan.hard:
            domain, sums, minimum = plan.standing(state, constraint)
            has = domain.has(nodes)
            unlabelled |= alive & ~has
            level = minimum + constraint.max_skew - constraint.counts_itself
            alive &= has & (domain.at(nodes, sums) <= level)
        skewed = ~alive & ~unlabelled
        return FilterResult(alive, (Reason(REASON_LABEL, unlabelled, True), Reason(REASON_SKEW, skewed)))

    def detail(self, ctx: Context, position: int) -> list[str]:
        """The constraints' counts and skews."""
        plan: SpreadPlan | None = ctx.data[self.name]
        return [] if plan is None else list(skews(plan, ctx.nodes.state, ctx.nodes.row(position)))

    def score(self, ctx: Context) -> IntArray | None:
        """What matching Pods a node's domains hold, rarer domains weighing more; fewer is better."""
        plan: SpreadPlan | None = ctx.data[self.name]
        if plan is None or not plan.soft:
            return None
        nodes = ctx.nodes
        considered = ctx.feasible
        if plan.needs_all_labels:
            for constraint in plan.soft:
                considered = considered & plan.domain(nodes.state, constraint).has(nodes)
        # `normalize` has to leave the same nodes out.
        ctx.data["PodTopologySpread considered"] = considered
        total = np.zeros(len(nodes), dtype=np.float64)
        for constraint in plan.soft:
            counts, size, has = self._counts(ctx, plan, constraint, considered)
            part = counts * np.log(size + 2) + (constraint.max_skew - 1)
            total += part if has is None else np.where(has, part, 0.0)
        # Go's math.Round, for what is never negative.
        scores: IntArray = np.floor(total + 0.5).astype(np.int64)
        return scores

    def normalize(self, ctx: Context, scores: IntArray) -> IntArray:
        """100 × (highest + lowest - score) / highest; 0 for nodes that lack one of the labels."""
        considered: BoolArray = ctx.data["PodTopologySpread considered"]
        seen = scores[considered]
        if not seen.size:
            return np.zeros_like(scores)
        highest, lowest = int(seen.max()), int(seen.min())
        if highest == 0:
            return MAX_SCORE * considered.astype(np.int64)
        scaled: IntArray = MAX_SCORE * (highest + lowest - scores) // highest
        return np.where(considered, scaled, 0)

    def wakes(self, waiting: PodInfo, kind: Event, other: PodInfo, state: ClusterState) -> bool:
        """Another Pod matters when one of the hard constraints counts it; one with new labels may have been counted."""
        if other.pod.metadata.namespace != waiting.pod.metadata.namespace:
            return False
        own = waiting.spec.topology_spread_constraints or self._defaults
        hard = [spec for spec in own if spec.when_unsatisfiable == "DoNotSchedule"]
        if Event.POD_LABEL in kind or not waiting.spec.topology_spread_constraints:
            return bool(hard)
        return any(state.counts.matches((_constraint(spec, waiting).term,), other) for spec in hard)

    # --- inside --------------------------------------------------------------------------------------------------

    def _counts(
        self, ctx: Context, plan: SpreadPlan, constraint: Constraint, considered: BoolArray
    ) -> tuple[IntArray, int, BoolArray | None]:
        """Matching Pods in the domain of each node, how many domains there are, and where the label is."""
        nodes, state = ctx.nodes, ctx.nodes.state
        domain = plan.domain(state, constraint)
        has = None if plan.needs_all_labels else domain.has(nodes)
        per_row = plan.per_row(state, constraint)
        if constraint.key == HOSTNAME:
            return nodes.take(per_row), int(np.count_nonzero(considered)), has
        rows = considered if nodes.rows is None else _spread_out(state.height, nodes.rows, considered)
        size = int(np.count_nonzero(domain.values_of(rows)))
        if has is not None and bool((considered & ~has).any()):
            size += 1  # nodes without the label count as one domain more (upstream: the value "")
        sums = domain.sums(per_row, plan.counted_softly(state, constraint))
        return domain.at(nodes, sums), size, has

    def _plan(self, ctx: Context) -> SpreadPlan | None:
        pod = ctx.pod
        own = pod.spec.topology_spread_constraints
        if own:
            constraints = [_constraint(spec, pod) for spec in own]
            needs_all = True
        else:
            constraints = self._default_constraints(ctx)
            needs_all = not self._system
        if not constraints:
            return None
        for constraint in constraints:
            constraint.counts_itself = ctx.nodes.state.counts.matches((constraint.term,), pod)
        return SpreadPlan(pod, constraints, needs_all)

    def _default_constraints(self, ctx: Context) -> list[Constraint]:
        if not self._defaults:
            return []
        term = ctx.nodes.state.owners.default_term(ctx.pod.pod)
        if term is None:
            return []
        constraints = [_constraint(spec, ctx.pod) for spec in self._defaults]
        for constraint in constraints:
            constraint.term = term
        return constraints


def _constraint(spec: TopologySpreadConstraint, pod: PodInfo) -> Constraint:
    return Constraint(spec, pod.pod.metadata.namespace, _with_keys(spec, pod.pod.metadata.labels))


def _with_keys(spec: TopologySpreadConstraint, labels: dict[str, str]) -> LabelSelector | None:
    """The selector, narrowed to the Pod's own values of `matchLabelKeys` (servers since 1.34 have done so already)."""
    selector = spec.label_selector
    narrowed = [LabelSelectorRequirement(k, "In", [labels[k]]) for k in spec.match_label_keys if k in labels]
    if not narrowed or selector is None:
        return selector
    return LabelSelector(selector.match_labels, [*selector.match_expressions, *narrowed])


def _spread_out(height: int, rows: IntArray, mask: BoolArray) -> BoolArray:
    whole = np.zeros(height, dtype=np.bool_)
    whole[rows[mask]] = True
    return whole
