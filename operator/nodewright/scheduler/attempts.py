"""What comes out of a scheduling cycle."""

from __future__ import annotations

import msgspec

from .diagnosis import Diagnosis
from .evaluator import Placement
from .gang import GangSpec
from .plugin import PluginError
from .pods import PodInfo
from .preemption.choice import Candidate
from .queue import QueuedPod


class Skipped(msgspec.Struct):
    """The Pod was dropped from the queue, for the reason given."""

    reason: str


class Attempt(msgspec.Struct):
    """One scheduling cycle and how it ended. `seconds` is the time that the decision took.

    `nominated` is what `status.nominatedNodeName` is to become, None for leaving it alone; `preemption` has the Pods
    to be evicted for this one, and `outranked` the Pods of lower priority that lose their nomination by it.
    """

    queued: QueuedPod
    profile: str
    outcome: Placement | Diagnosis | PluginError | Skipped
    seconds: float
    nominated: str | None = None
    preemption: Candidate | None = None
    outranked: list[PodInfo] = []
    # The gang whose members are placed together with this one, and how many of them.
    gang: GangSpec | None = None
    together: int = 1

    @property
    def pod(self) -> PodInfo:
        """The Pod that was looked at."""
        return self.queued.pod


class Assumption(msgspec.Struct):
    """A Pod that counts at a node since we decided so; the API has not shown it there yet."""

    queued: QueuedPod
    node: str
    profile: str
