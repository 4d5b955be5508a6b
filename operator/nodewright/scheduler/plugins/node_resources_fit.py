"""NodeResourcesFit: requests must fit into what is left of a node, and emptier (or fuller) nodes are better."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from ..events import Event
from ..plugin import MAX_SCORE, Context, FilterResult, Plugin, Reason, Scope
from ..pods import PodPart
from ..requests import SCORING_DEFAULTS
from ..state.arrays import BoolArray, IntArray
from .resource_scoring import CPU_AND_MEMORY, ResourceSpec, check_resources, scoring_requests

TOO_MANY_PODS = "Too many pods"


class ScoringStrategy(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How the score follows from what is requested."""

    type: Literal["LeastAllocated", "MostAllocated"] = "LeastAllocated"
    resources: list[ResourceSpec] = msgspec.field(default_factory=lambda: list(CPU_AND_MEMORY))


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """NodeResourcesFitArgs."""

    ignored_resources: list[str] = []
    ignored_resource_groups: list[str] = []
    scoring_strategy: ScoringStrategy = msgspec.field(default_factory=ScoringStrategy)


class NodeResourcesFit(Plugin):
    """Rejects nodes without room, with one reason per resource that is short.

    A shortage is unresolvable where the request exceeds even the node's allocatable amount.
    """

    name = "NodeResourcesFit"
    weight = 1
    scope = Scope.NODE_PODS
    reads = PodPart.SPEC
    events = Event.POD_DELETE | Event.POD_SCALE_DOWN | Event.NODE_ADD | Event.NODE_ALLOCATABLE
    args_type = Args

    def __init__(self, args: Args | None = None) -> None:
        args = args or Args()
        check_resources(args.scoring_strategy.resources, "scoringStrategy.resources")
        self._ignored = frozenset(args.ignored_resources)
        self._ignored_groups = frozenset(args.ignored_resource_groups)
        self._resources = args.scoring_strategy.resources
        self._least = args.scoring_strategy.type == "LeastAllocated"

    def filter(self, ctx: Context) -> FilterResult:
        """Room for one more Pod, and for each resource that it requests."""
        nodes = ctx.nodes
        full = nodes.pod_count >= nodes.pod_limit
        ok = ~full
        reasons = [Reason(TOO_MANY_PODS, full)]
        too_large: BoolArray | None = None
        for name, amount in ctx.pod.template.requests.items():
            if self._is_ignored(name):
                continue
            allocatable = nodes.allocatable(name)
            short = nodes.requested(name) + amount > allocatable
            ok &= ~short
            larger = allocatable < amount
            too_large = larger if too_large is None else too_large | larger
            reasons.append(Reason(f"Insufficient {name}", short, larger))
        if too_large is not None:
            reasons[0].unresolvable = too_large
        return FilterResult(ok, reasons)

    def score(self, ctx: Context) -> IntArray:
        """The weighted mean over the resources of the share that is left (least) or taken (most), 0..100."""
        wanted = ctx.data.get(self.name)
        if wanted is None:
            wanted = ctx.data[self.name] = scoring_requests(ctx.pod, self._resources, SCORING_DEFAULTS)
        nodes = ctx.nodes
        total = np.zeros(len(nodes), dtype=np.int64)
        weights = np.zeros(len(nodes), dtype=np.int64)
        for spec in self._resources:
            if (amount := wanted.get(spec.name)) is None:
                continue
            capacity = nodes.allocatable(spec.name)
            taken = nodes.nonzero_requested(spec.name) if spec.name in ("cpu", "memory") else nodes.requested(spec.name)
            taken = taken + amount
            divisor = np.maximum(capacity, 1)
            if self._least:
                share = np.maximum(capacity - taken, 0) * MAX_SCORE // divisor
            else:
                share = np.minimum(taken, capacity) * MAX_SCORE // divisor
            offered = (capacity > 0) * np.int64(spec.weight)
            total += share * offered
            weights += offered
        total //= np.maximum(weights, 1)
        return total

    def _is_ignored(self, resource: str) -> bool:
        return resource in self._ignored or resource.partition("/")[0] in self._ignored_groups
