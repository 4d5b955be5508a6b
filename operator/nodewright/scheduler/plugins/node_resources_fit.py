"""NodeResourcesFit: requests must fit into what is left of a node, and emptier (or fuller) nodes are better."""

from __future__ import annotations

import msgspec
import numpy as np

from .. import wording
from ..arguments import Faults, label_name_fault
from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Reason, Scope
from ..pods import PodInfo, PodPart
from ..requests import SCORING_DEFAULTS
from ..state.arrays import BoolArray, IntArray
from .resource_scoring import (
    CPU_AND_MEMORY,
    ResourceSpec,
    ShapePoint,
    by_shape,
    check_shape,
    least_allocated,
    most_allocated,
    scoring_requests,
    with_defaults,
)

TOO_MANY_PODS = "Too many pods"


LEAST, MOST, RATIO = "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"


class RatioParams(msgspec.Struct, forbid_unknown_fields=True):
    """How the score follows from the share of a resource that is taken."""

    shape: list[ShapePoint] = []


class ScoringStrategy(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How the score follows from what is requested."""

    type: str = LEAST
    resources: list[ResourceSpec] = msgspec.field(default_factory=lambda: list(CPU_AND_MEMORY))
    requested_to_capacity_ratio: RatioParams | None = None


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """NodeResourcesFitArgs. Only extended resources can be ignored."""

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
        check(args)
        strategy = args.scoring_strategy
        self._ignored = frozenset(args.ignored_resources)
        self._ignored_groups = frozenset(args.ignored_resource_groups)
        self._resources = with_defaults(strategy.resources)
        ratio = strategy.requested_to_capacity_ratio
        self._is_ratio = ratio is not None
        self._share = by_shape(ratio.shape) if ratio else least_allocated if strategy.type == LEAST else most_allocated

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

    def detail(self, ctx: Context, position: int) -> list[str]:
        """How much of what is short."""
        nodes = ctx.nodes
        found = []
        if nodes.pod_count[position] >= nodes.pod_limit[position]:
            found.append(f"pods: {nodes.pod_count[position]} of {nodes.pod_limit[position]} are there")
        for name, wanted in self.wanted(ctx.pod).items():
            capacity = int(nodes.allocatable(name)[position])
            free = capacity - int(nodes.requested(name)[position])
            if wanted > free:
                needs, has, of, short = (wording.amount(name, n) for n in (wanted, free, capacity, wanted - free))
                beyond = ", more than the whole node has" if wanted > capacity else ""
                found.append(f"{name}: needs {needs}, {has} free of {of}: {short} short{beyond}")
        return found

    def score(self, ctx: Context) -> IntArray:
        """The weighted mean over the resources, 0..100; resources that a node does not have are left out.

        RequestedToCapacityRatio also leaves out resources that score 0, and rounds halves up; the others round down.
        """
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
            share = self._share(taken + amount, capacity)
            counts = (capacity > 0) & (share > 0) if self._is_ratio else capacity > 0
            weight = counts * np.int64(spec.weight)
            total += share * weight
            weights += weight
        divisor = np.maximum(weights, 1)
        mean: IntArray = (2 * total + divisor) // (2 * divisor) if self._is_ratio else total // divisor
        return mean

    def wanted(self, pod: PodInfo) -> dict[str, int]:
        """What a Pod requests, without the resources that this profile ignores."""
        return {name: amount for name, amount in pod.template.requests.items() if not self._is_ignored(name)}

    def _is_ignored(self, resource: str) -> bool:
        if not is_extended(resource):
            return False
        return resource in self._ignored or resource.partition("/")[0] in self._ignored_groups


def is_extended(resource: str) -> bool:
    """Whether a resource is neither the node's own nor Kubernetes' (upstream: IsExtendedResourceName)."""
    return "/" in resource and "kubernetes.io/" not in resource and not resource.startswith("requests.")


def check(args: Args) -> None:
    """Upstream's ValidateNodeResourcesFitArgs. Raises ValueError with all that is wrong."""
    faults = Faults()
    for index, name in enumerate(args.ignored_resources):
        if why := label_name_fault(name):
            faults.invalid(f"ignoredResources[{index}]", name, why)
    for index, group in enumerate(args.ignored_resource_groups):
        field = f"ignoredResourceGroups[{index}]"
        if "/" in group:
            faults.invalid(field, group, "resource group name can't contain '/'")
        elif why := label_name_fault(group):
            faults.invalid(field, group, why)
    strategy, field = args.scoring_strategy, "scoringStrategy"
    if strategy.type not in (LEAST, MOST, RATIO):
        faults.unsupported(f"{field}.type", strategy.type, (LEAST, MOST, RATIO))
    for index, spec in enumerate(with_defaults(strategy.resources)):
        if not 1 <= spec.weight <= 100:
            why = f"resource weight of {spec.name} not in valid range (0, 100]"
            faults.invalid(f"{field}.resources[{index}].weight", spec.weight, why)
    ratio = strategy.requested_to_capacity_ratio
    if strategy.type == RATIO and ratio is None:
        faults.required(f"{field}.requestedToCapacityRatio", f"must be specified when type is {RATIO}")
    elif strategy.type != RATIO and ratio is not None:
        faults.forbidden(f"{field}.requestedToCapacityRatio", f"must be nil when type is not {RATIO}")
    elif ratio is not None:
        check_shape(ratio.shape, f"{field}.requestedToCapacityRatio.shape", faults)
    faults.check()
