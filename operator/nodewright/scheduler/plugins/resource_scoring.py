"""What the resource plugins share: their arguments, a Pod's request as scoring sees it, and shares in percent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from .. import requests
from ..arguments import Faults
from ..plugin import MAX_SCORE
from ..pods import PodInfo
from ..state.arrays import IntArray

NATIVE = ("cpu", "memory", "ephemeral-storage")

# Upstream's MaxCustomPriorityScore: what a shape point may score at most.
MAX_SHAPE_SCORE = 10

# Above this, an amount times 100 does not fit into 64 bits.
_LARGE = np.iinfo(np.int64).max // MAX_SCORE

ShareScore = Callable[[IntArray, IntArray], IntArray]


class ResourceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A resource that takes part in a score, and its weight (1..100; 0 means 1, as upstream)."""

    name: str
    weight: int = 1


class ShapePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A point of a scoring function: at this utilization (0..100) this score (0..10)."""

    utilization: int
    score: int


CPU_AND_MEMORY = (ResourceSpec("cpu"), ResourceSpec("memory"))


def with_defaults(resources: Sequence[ResourceSpec]) -> list[ResourceSpec]:
    """Upstream's defaults: cpu and memory where no resource is given, weight 1 where none is."""
    return [msgspec.structs.replace(spec, weight=spec.weight or 1) for spec in resources or CPU_AND_MEMORY]


def check_shape(shape: Sequence[ShapePoint], field: str, faults: Faults) -> None:
    """Upstream's validateFunctionShape: at least one point, utilization increasing, all within limits."""
    if not shape:
        faults.required(field, "at least one point must be specified")
    for index, (before, point) in enumerate(itertools.pairwise(shape), start=1):
        if before.utilization >= point.utilization:
            why = "values must be sorted in increasing order"
            faults.invalid(f"{field}[{index}].utilization", point.utilization, why)
            break
    for index, point in enumerate(shape):
        faults.in_range(f"{field}[{index}].utilization", point.utilization, 0, 100)
        faults.in_range(f"{field}[{index}].score", point.score, 0, MAX_SHAPE_SCORE)


def scoring_requests(
    pod: PodInfo, resources: Sequence[ResourceSpec], defaults: Mapping[str, int] | None
) -> dict[str, int]:
    """The Pod's request per resource, with `defaults` (billionths) for containers that state none.

    With defaults, containers alone count, not what the Pod requests as a whole: kube-scheduler 1.36's NodeResourcesFit
    scores so, its NodeResourcesBalancedAllocation does not. Extended resources that the Pod does not ask for are left
    out: they take no part in the score.
    """
    amounts = requests.pod_requests(pod.pod, defaults, pod_level=defaults is None)
    wanted = {spec.name: requests.in_units(spec.name, amounts.get(spec.name, 0)) for spec in resources}
    return {name: amount for name, amount in wanted.items() if amount or name in NATIVE}


def least_allocated(taken: IntArray, capacity: IntArray) -> IntArray:
    """Percent of the capacity that is left, rounded down; 0 where more is taken than there is."""
    return percent(np.maximum(capacity - taken, 0), capacity)


def most_allocated(taken: IntArray, capacity: IntArray) -> IntArray:
    """Percent of the capacity that is taken, rounded down; 100 where more is taken than there is."""
    return percent(np.minimum(taken, capacity), capacity)


def percent(part: IntArray, whole: IntArray) -> IntArray:
    """100 × part / whole, rounded down, exact for any amounts; part must be in 0..whole. 0 where whole is 0."""
    divisor = np.maximum(whole, 1)
    if part.size and part.max() > _LARGE:
        exact: IntArray = (part.astype(object) * MAX_SCORE // divisor.astype(object)).astype(np.int64)
        return exact
    shares: IntArray = part * MAX_SCORE // divisor
    return shares


def by_shape(shape: Sequence[ShapePoint]) -> ShareScore:
    """The score (0..100) of the percentage taken, on straight lines between the points (RequestedToCapacityRatio)."""
    table = np.array([_on_shape(shape, utilization) for utilization in range(MAX_SCORE + 1)], dtype=np.int64)

    def score(taken: IntArray, capacity: IntArray) -> IntArray:
        scores: IntArray = table[most_allocated(taken, capacity)]
        return scores

    return score


def _on_shape(shape: Sequence[ShapePoint], utilization: int) -> int:
    factor = MAX_SCORE // MAX_SHAPE_SCORE
    before: ShapePoint | None = None
    for point in shape:
        if utilization <= point.utilization:
            if before is None:
                return point.score * factor
            rise, run = (point.score - before.score) * factor, point.utilization - before.utilization
            way = rise * (utilization - before.utilization)
            # Upstream divides towards zero, Python downwards; they differ where the line falls.
            return before.score * factor + (way // run if way >= 0 else -(-way // run))
        before = point
    return shape[-1].score * factor
