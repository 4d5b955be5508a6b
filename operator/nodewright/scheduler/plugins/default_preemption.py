"""DefaultPreemption: its arguments. The work is done by `nodewright.scheduler.preemption`."""

from __future__ import annotations

import msgspec

from ..arguments import Faults
from ..events import Event
from ..plugin import Plugin, Scope
from ..pods import PodPart
from ..preemption.limits import Limits


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """DefaultPreemptionArgs: how many candidates to find, as a share of the nodes in question and at least."""

    min_candidate_nodes_percentage: int = 10
    min_candidate_nodes_absolute: int = 100


class DefaultPreemption(Plugin):
    """Evicts Pods of lower priority where that makes room for a Pod that fits nowhere."""

    name = "DefaultPreemption"
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.NONE
    args_type = Args
    is_post_filter = True

    def __init__(self, args: Args | None = None) -> None:
        args = args or Args()
        percentage, absolute = args.min_candidate_nodes_percentage, args.min_candidate_nodes_absolute
        faults = Faults()
        faults.in_range("minCandidateNodesPercentage", percentage, 0, 100)
        if absolute < 0:
            faults.invalid("minCandidateNodesAbsolute", absolute, "not in valid range [0, inf)")
        if not percentage and not absolute:
            for field, other in (("Percentage", "Absolute"), ("Absolute", "Percentage")):
                why = f"cannot be zero at the same time as minCandidateNodes{other}"
                faults.invalid(f"minCandidateNodes{field}", 0, why)
        faults.check()
        self.limits = Limits(args.min_candidate_nodes_percentage, args.min_candidate_nodes_absolute)
