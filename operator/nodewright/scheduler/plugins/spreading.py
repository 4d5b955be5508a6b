"""The constraints of one kind of Pod, and what they need of the cluster, kept from Pod to Pod."""

from __future__ import annotations

import numpy as np

from nodewright.kube.api.meta import LabelSelector

from ..node_selection import match_required
from ..objects import TopologySpreadConstraint
from ..pods import PodInfo
from ..state import ClusterState, NodeView
from ..state.arrays import BoolArray, IntArray
from ..state.domains import Domain, Domains
from ..terms import Term
from ..tolerations import untolerated_sets

HOSTNAME = "kubernetes.io/hostname"


class Constraint:
    """A topology spread constraint with upstream's defaults filled in. `counts_itself`: the Pod matches its own."""

    __slots__ = ("counts_itself", "hard", "honors_affinity", "honors_taints", "key", "max_skew", "min_domains", "term")

    def __init__(self, spec: TopologySpreadConstraint, namespace: str, selector: LabelSelector | None) -> None:
        self.key = spec.topology_key
        self.max_skew = spec.max_skew
        self.min_domains = 1 if spec.min_domains is None else spec.min_domains
        self.hard = spec.when_unsatisfiable == "DoNotSchedule"
        self.honors_affinity = spec.node_affinity_policy != "Ignore"
        self.honors_taints = spec.node_taints_policy == "Honor"
        self.term = Term([namespace], selector)
        self.counts_itself = False


class SpreadPlan:
    """The constraints of a Pod. Masks over nodes are worked out once per state of the nodes.

    `needs_all_labels`: nodes that lack one of the soft constraints' labels take no part in scoring.
    """

    def __init__(self, pod: PodInfo, constraints: list[Constraint], needs_all_labels: bool) -> None:
        self._pod = pod
        self.hard = [c for c in constraints if c.hard]
        self.soft = [c for c in constraints if not c.hard]
        self.needs_all_labels = needs_all_labels
        self._domains = Domains()
        self._generation = (-1, -1)
        self._masks: dict[object, BoolArray] = {}
        self._values: dict[Constraint, BoolArray] = {}

    def domain(self, state: ClusterState, constraint: Constraint) -> Domain:
        """The values of the constraint's label."""
        return self._domains.of(state, constraint.key)

    def per_row(self, state: ClusterState, constraint: Constraint) -> IntArray:
        """Matching Pods at each row; Pods that are ending do not count.

        An empty selector selects all Pods, and yet counts none (upstream: countPodsMatchSelector).
        """
        selector = constraint.term.selector
        if selector is not None and not selector.match_labels and not selector.match_expressions:
            return np.zeros(state.height, dtype=np.int64)
        return state.counts.matching((constraint.term,), skip_terminating=True)[: state.height]

    def standing(self, state: ClusterState, constraint: Constraint) -> tuple[Domain, IntArray, int]:
        """For a hard constraint: the domain, matching Pods per value, and the lowest number of all values."""
        self._refresh(state)
        domain = self.domain(state, constraint)
        counted = self._counted(state, constraint, self.hard, "hard")
        values = self._values.get(constraint)
        if values is None:
            values = self._values[constraint] = domain.values_of(counted)
        sums = domain.sums(self.per_row(state, constraint), counted)
        eligible = sums[values]
        enough = len(eligible) >= constraint.min_domains
        return domain, sums, int(eligible.min()) if enough and len(eligible) else 0

    def counts(self, state: ClusterState, constraint: Constraint) -> dict[str, int]:
        """For a hard constraint: matching Pods by value of the label, over the values that count."""
        domain, sums, _ = self.standing(state, constraint)
        numbers = np.flatnonzero(self._values[constraint])
        return {domain.column.values[number - 1]: int(sums[number]) for number in numbers}

    def counted_softly(self, state: ClusterState, constraint: Constraint) -> BoolArray:
        """The nodes whose Pods count for a soft constraint."""
        self._refresh(state)
        return self._counted(state, constraint, self.soft if self.needs_all_labels else [], "soft")

    # --- masks over all rows, valid while nodes stay as they are ---------------------------------------------------

    def _refresh(self, state: ClusterState) -> None:
        generation = (state.node_generation, state.height)
        if generation != self._generation:
            self._generation = generation
            self._masks = {}
            self._values = {}

    def _counted(self, state: ClusterState, constraint: Constraint, labelled: list[Constraint], kind: str) -> BoolArray:
        key = (kind, constraint.honors_affinity, constraint.honors_taints)
        mask = self._masks.get(key)
        if mask is None:
            nodes = NodeView(state)
            mask = nodes.present.copy()
            for other in labelled:
                mask &= self.domain(state, other).has(nodes)
            if constraint.honors_affinity:
                mask &= match_required(nodes, self._pod.spec)
            if constraint.honors_taints:
                free = ~untolerated_sets(state.taints.sets, self._pod.spec.tolerations)
                mask &= free[nodes.taint_sets]
            self._masks[key] = mask
        return mask
