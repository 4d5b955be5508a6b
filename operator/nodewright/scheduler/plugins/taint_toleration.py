"""TaintToleration: taints keep Pods away, unless they are tolerated."""

from __future__ import annotations

import numpy as np

from .. import wording
from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Scope, normalize_by_max
from ..pods import PodPart
from ..state.arrays import IntArray
from ..tolerations import KEEPS_AWAY, tolerated, untolerated_sets

REASON = "node(s) had untolerated taint(s)"


class TaintToleration(Plugin):
    """Rejects nodes with an untolerated NoSchedule or NoExecute taint (unresolvable).

    Scores by the number of untolerated PreferNoSchedule taints: fewer are better.
    """

    name = "TaintToleration"
    weight = 3
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.NODE_ADD | Event.NODE_TAINT | Event.POD_SPEC

    def filter(self, ctx: Context) -> FilterResult | None:
        """None while no node of the cluster has a taint."""
        sets = ctx.nodes.state.taints.sets
        if len(sets) == 1:
            return None
        ok = ~untolerated_sets(sets, ctx.pod.spec.tolerations)
        return FilterResult(ok[ctx.nodes.taint_sets], REASON, unresolvable=True)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """The taints that keep the Pod away."""
        taints = ctx.nodes.state.taints.sets[int(ctx.nodes.taint_sets[position])]
        tolerations = ctx.pod.spec.tolerations
        return [
            f"taint {wording.taint(t)} is not tolerated"
            for t in taints
            if t.effect in KEEPS_AWAY and not tolerated(t, tolerations)
        ]

    def score(self, ctx: Context) -> IntArray:
        """How many PreferNoSchedule taints are not tolerated."""
        # As upstream, only tolerations for that effect, or for all effects, count here.
        tolerations = [t for t in ctx.pod.spec.tolerations if t.effect in ("", "PreferNoSchedule")]
        counts = np.array(
            [
                sum(t.effect == "PreferNoSchedule" and not tolerated(t, tolerations) for t in taints)
                for taints in ctx.nodes.state.taints.sets
            ],
            dtype=np.int64,
        )
        scores: IntArray = counts[ctx.nodes.taint_sets]
        return scores

    def normalize(self, ctx: Context, scores: IntArray) -> IntArray:
        """100 for nodes without such taints, less in proportion to the node that has most."""
        return normalize_by_max(ctx, scores, reverse=True)
