"""NodeResourcesBalancedAllocation: prefer nodes whose resources the Pod makes evenly used."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from ..arguments import Faults
from ..events import Event
from ..plugin import MAX_SCORE, Context, Plugin, Scope
from ..pods import PodPart
from ..state.arrays import IntArray
from .resource_scoring import CPU_AND_MEMORY, ResourceSpec, scoring_requests, with_defaults

FloatArray = npt.NDArray[np.float64]


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """NodeResourcesBalancedAllocationArgs."""

    resources: list[ResourceSpec] = msgspec.field(default_factory=lambda: list(CPU_AND_MEMORY))


class BalancedAllocation(Plugin):
    """Scores the change in balance that the Pod brings: about 75 when none, up to 100 better, down to 50 worse.

    The rule is that of 1.36: with and without the Pod, the balance is 100 × (1 - standard deviation of the used
    shares); earlier releases took the balance with the Pod alone. Pods without requests are not scored.
    """

    name = "NodeResourcesBalancedAllocation"
    weight = 1
    scope = Scope.NODE_PODS
    reads = PodPart.SPEC
    events = Event.NONE
    args_type = Args

    def __init__(self, args: Args | None = None) -> None:
        self._resources = with_defaults((args or Args()).resources)
        faults = Faults()
        names: set[str] = set()
        for index, spec in enumerate(self._resources):
            if spec.name in names:
                faults.duplicate(f"resources[{index}].name", spec.name)
            names.add(spec.name)
            if spec.weight != 1:
                faults.invalid(f"resources[{index}].weight", spec.weight, "must be 1")
        faults.check()

    def score(self, ctx: Context) -> IntArray | None:
        """None for Pods that request none of the resources."""
        wanted = ctx.data.get(self.name)
        if wanted is None:
            wanted = ctx.data[self.name] = scoring_requests(ctx.pod, self._resources, None)
        if not any(wanted.values()):
            return None
        capacities, before, after = [], [], []
        for name, amount in wanted.items():
            requested = ctx.nodes.requested(name)
            capacities.append(ctx.nodes.allocatable(name))
            before.append(requested)
            after.append(requested + amount)
        gain = balance(after, capacities) - balance(before, capacities)
        half = MAX_SCORE // 2
        scores: IntArray = half + (half + gain) // 2
        return scores


def balance(requested: list[IntArray], capacities: list[IntArray]) -> IntArray:
    """100 × (1 - standard deviation of the used shares), truncated; resources that a node lacks do not count."""
    offered = [capacity > 0 for capacity in capacities]
    shares: list[FloatArray] = [
        np.minimum(taken / np.maximum(capacity, 1), 1.0) * has
        for taken, capacity, has in zip(requested, capacities, offered, strict=True)
    ]
    if len(shares) == 2:
        deviation = np.abs((shares[0] - shares[1]) / 2) * (offered[0] & offered[1])
    else:
        deviation = _deviation(shares, offered)
    balanced: IntArray = ((1 - deviation) * MAX_SCORE).astype(np.int64)
    return balanced


def _deviation(shares: list[FloatArray], offered: list[npt.NDArray[np.bool_]]) -> FloatArray:
    """Per node, over the resources it has: half the difference of two, the population's deviation of more, else 0."""
    count = np.sum(offered, axis=0)
    mean = sum(shares) / np.maximum(count, 1)
    squares = sum((share - mean) * (share - mean) * has for share, has in zip(shares, offered, strict=True))
    deviation: FloatArray = np.sqrt(squares / np.maximum(count, 1))
    # With two resources this equals half the difference; upstream computes that directly, and truncates it.
    present = np.array(offered) & (count == 2)
    signs = np.where(np.cumsum(present, axis=0) == 1, 1.0, -1.0) * present
    pairs = np.abs(np.sum(np.array(shares) * signs, axis=0) / 2)
    return np.where(count == 2, pairs, np.where(count > 2, deviation, 0.0))
