"""NodeAffinity: node selectors, required and preferred node affinity."""

from __future__ import annotations

import msgspec
import numpy as np

from ..events import Event
from ..node_selection import is_empty, match_required, match_selector, match_term, named_nodes
from ..objects import NodeAffinity as NodeAffinitySpec
from ..objects import NodeSelector, PreferredTerm
from ..plugin import Context, FilterResult, OnlyNodes, Plugin, Reason, Rejected, Scope, normalize_by_max
from ..pods import PodInfo, PodPart
from ..state.arrays import IntArray
from .added_affinity import check_added_affinity
from .selector_details import unmatched_labels, unmatched_terms

REASON_POD = "node(s) didn't match Pod's node affinity/selector"
REASON_ENFORCED = "node(s) didn't match scheduler-enforced node affinity"
REASON_CONFLICT = "pod affinity terms conflict"


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """NodeAffinityArgs: `addedAffinity` applies to every Pod of the profile, on top of the Pod's own."""

    added_affinity: NodeAffinitySpec | None = None


class NodeAffinity(Plugin):
    """Rejects nodes that the Pod's selector does not match (unresolvable); scores by the preferred terms that do."""

    name = "NodeAffinity"
    weight = 2
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.NODE_ADD | Event.NODE_LABEL
    args_type = Args

    def __init__(self, args: Args | None = None) -> None:
        added = args.added_affinity if args else None
        if added is not None:
            check_added_affinity(added)
        self._added_required = added.required if added else None
        self._added_preferred = added.preferred if added else []

    def prepare(self, ctx: Context) -> Rejected | OnlyNodes | None:
        """Pods pinned by `metadata.name` (those of DaemonSets) are compared with the named nodes only."""
        required = _required(ctx.pod)
        names = named_nodes(required) if required is not None else None
        if names is None:
            return None
        return OnlyNodes(names) if names else Rejected(REASON_CONFLICT)

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods without selector, in a profile without one."""
        required, wanted = _required(ctx.pod), ctx.pod.spec.node_selector
        if required is None and not wanted and self._added_required is None:
            return None
        own = match_required(ctx.nodes, ctx.pod.spec)
        if self._added_required is None:
            return FilterResult(own, REASON_POD, unresolvable=True)
        added = match_selector(ctx.nodes, self._added_required)
        reasons = (Reason(REASON_ENFORCED, ~added, True), Reason(REASON_POD, added & ~own, True))
        return FilterResult(own & added, reasons)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """The labels that do not match, and what the node has."""
        found = list(unmatched_labels(ctx, ctx.pod.spec.node_selector, position))
        if (required := _required(ctx.pod)) is not None:
            found += unmatched_terms(ctx, required, position, "node affinity")
        if self._added_required is not None:
            found += unmatched_terms(ctx, self._added_required, position, "the profile's addedAffinity")
        return found

    def score(self, ctx: Context) -> IntArray | None:
        """The sum of the weights of the matching preferred terms."""
        affinity = ctx.pod.spec.affinity
        own = affinity.node_affinity.preferred if affinity and affinity.node_affinity else []
        if not own and not self._added_preferred:
            return None
        scores = np.zeros(len(ctx.nodes), dtype=np.int64)
        preferred: PreferredTerm
        for preferred in (*self._added_preferred, *own):
            if preferred.weight and not is_empty(preferred.preference):
                scores += preferred.weight * match_term(ctx.nodes, preferred.preference)
        return scores

    def normalize(self, ctx: Context, scores: IntArray) -> IntArray:
        """100 for the node with the highest sum."""
        return normalize_by_max(ctx, scores)


def _required(pod: PodInfo) -> NodeSelector | None:
    affinity = pod.spec.affinity
    return affinity.node_affinity.required if affinity and affinity.node_affinity else None
