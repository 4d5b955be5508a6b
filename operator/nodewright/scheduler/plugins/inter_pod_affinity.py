"""InterPodAffinity: near certain Pods, or apart from them, and what placed Pods want of newcomers."""

from __future__ import annotations

import msgspec
import numpy as np

from ..arguments import Faults
from ..events import Event
from ..plugin import MAX_SCORE, Context, FilterResult, Plugin, Reason, Scope
from ..pods import PodInfo, PodPart
from ..state import ClusterState, NodeView
from ..state.arrays import BoolArray, IntArray
from ..state.counts import Carrier
from ..state.domains import Domains
from ..terms import FORBIDDEN, PREFERRED, REQUIRED, PlacedTerm
from .affinity_details import missing_company, unwanted_company, unwelcoming

REASON_AFFINITY = "node(s) didn't match pod affinity rules"
REASON_ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
REASON_EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"
DOMAINS = "InterPodAffinity domains"


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """InterPodAffinityArgs: what another Pod's required affinity to this one is worth, in 0..100."""

    hard_pod_affinity_weight: int = 1
    ignore_preferred_terms_of_existing_pods: bool = False


class InterPodAffinity(Plugin):
    """Rejects nodes by required terms, the Pod's own (affinity: unresolvable) and placed Pods'; scores by the rest."""

    name = "InterPodAffinity"
    weight = 2
    scope = Scope.CLUSTER
    reads = PodPart.SPEC | PodPart.NAMESPACE | PodPart.LABELS
    events = Event.POD_ADD | Event.POD_DELETE | Event.POD_LABEL | Event.NODE_ADD | Event.NODE_LABEL | Event.NAMESPACE
    args_type = Args

    def __init__(self, args: Args | None = None) -> None:
        args = args or Args()
        faults = Faults()
        faults.in_range("hardPodAffinityWeight", args.hard_pod_affinity_weight, 0, 100)
        faults.check()
        self._hard_weight = args.hard_pod_affinity_weight
        self._ignores_existing = args.ignore_preferred_terms_of_existing_pods

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods without required terms that no placed Pod wants away."""
        terms = ctx.pod.terms
        forbidding = [c for c in ctx.nodes.state.counts.carriers(ctx.pod) if c.meaning == FORBIDDEN]
        if not terms.affinity and not terms.anti_affinity and not forbidding:
            return None
        ok = np.ones(len(ctx.nodes), dtype=np.bool_)
        reasons: list[Reason] = []
        if terms.affinity:
            near = self._near(ctx, terms.affinity)
            reasons.append(Reason(REASON_AFFINITY, ~near, True))
            ok = near
        if terms.anti_affinity:
            matching = ctx.nodes.state.counts.matching
            hit = _anywhere(ctx, [(t.topology_key, matching((t.term,))) for t in terms.anti_affinity])
            reasons.append(Reason(REASON_ANTI_AFFINITY, ok & hit))
            ok = ok & ~hit
        if forbidding:
            hit = _anywhere(ctx, [(c.placed.topology_key, c.per_row) for c in forbidding])
            reasons.append(Reason(REASON_EXISTING, ok & hit))
            ok = ok & ~hit
        return FilterResult(ok, reasons)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """Which Pods are missing, or in the way."""
        terms = ctx.pod.terms
        forbidding = [c for c in ctx.nodes.state.counts.carriers(ctx.pod) if c.meaning == FORBIDDEN]
        found = list(missing_company(ctx, terms.affinity, position)) if terms.affinity else []
        found += unwanted_company(ctx, terms.anti_affinity, position)
        return [*found, *unwelcoming(ctx, forbidding, position)]

    def score(self, ctx: Context) -> IntArray | None:
        """The weights of the preferred terms that hold, over all Pods near a node. None when there is none."""
        own = ctx.pod.terms.preferred
        if not own and self._ignores_existing:
            return None
        counts = ctx.nodes.state.counts
        parts = [(t.topology_key, counts.matching((t.term,)), t.weight) for t in own]
        for carrier in counts.carriers(ctx.pod):
            weight = self._weight(carrier)
            if weight:
                parts.append((carrier.placed.topology_key, carrier.per_row, weight))
        if not parts:
            return None
        nodes, domains = ctx.nodes, _domains(ctx)
        scores = np.zeros(len(nodes), dtype=np.int64)
        for key, per_row, weight in parts:
            domain = domains.of(nodes.state, key)
            scores += weight * domain.at(nodes, domain.sums(per_row))
        return scores

    def normalize(self, ctx: Context, scores: IntArray) -> IntArray:
        """From 0 for the lowest to 100 for the highest, truncated; all 0 when they are equal."""
        seen = scores[ctx.feasible]
        lowest, highest = int(seen.min()), int(seen.max())
        if highest == lowest:
            return np.zeros_like(scores)
        shares = (scores - lowest) / (highest - lowest)
        scaled: IntArray = (MAX_SCORE * shares).astype(np.int64)
        return scaled

    def wakes(self, waiting: PodInfo, kind: Event, other: PodInfo, state: ClusterState) -> bool:
        """A newcomer helps by being near enough to matter, one that leaves by not being in the way any more."""
        if Event.POD_LABEL in kind:
            return True
        matches, terms = state.counts.matches, waiting.terms
        if Event.POD_ADD in kind and terms.affinity and matches((t.term for t in terms.affinity), other):
            return True
        if Event.POD_DELETE not in kind:
            return False
        return any(matches((t.term,), other) for t in terms.anti_affinity) or any(
            matches((t.term,), waiting) for t in other.terms.anti_affinity
        )

    # --- inside --------------------------------------------------------------------------------------------------

    def _near(self, ctx: Context, terms: tuple[PlacedTerm, ...]) -> BoolArray:
        """Where Pods that all terms match are near by every term; the first of a group may start anywhere."""
        nodes, counts, domains = ctx.nodes, ctx.nodes.state.counts, _domains(ctx)
        everything = tuple(t.term for t in terms)
        per_row = counts.matching(everything)
        labelled = np.ones(len(nodes), dtype=np.bool_)
        near = np.ones(len(nodes), dtype=np.bool_)
        is_first = True
        for term in terms:
            domain = domains.of(nodes.state, term.topology_key)
            sums = domain.sums(per_row)
            labelled &= domain.has(nodes)
            near &= domain.at(nodes, sums) > 0
            is_first = is_first and not sums.any()
        if is_first and counts.matches(everything, ctx.pod):
            return labelled
        return labelled & near

    def _weight(self, carrier: Carrier) -> int:
        if carrier.meaning == REQUIRED:
            return self._hard_weight
        return carrier.placed.weight if carrier.meaning == PREFERRED else 0


def _anywhere(ctx: Context, parts: list[tuple[str, IntArray]]) -> BoolArray:
    """Where any of the counts is above zero within the node's value of its label."""
    nodes: NodeView = ctx.nodes
    domains = _domains(ctx)
    hit = np.zeros(len(nodes), dtype=np.bool_)
    for key, per_row in parts:
        domain = domains.of(nodes.state, key)
        hit |= domain.at(nodes, domain.sums(per_row)) > 0
    return hit


def _domains(ctx: Context) -> Domains:
    domains: Domains | None = ctx.data.get(DOMAINS)
    if domains is None:
        domains = ctx.data[DOMAINS] = Domains()
    return domains
