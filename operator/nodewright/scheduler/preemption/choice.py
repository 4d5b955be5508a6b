"""Which of several nodes to preempt on (upstream: pickOneNodeForPreemption)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..pods import PodInfo

# A Pod that has not started counts as starting now, later than any that has.
NOT_STARTED = "9999"


class Candidate(msgspec.Struct):
    """A node, the Pods that would have to go, most important first, and how many of them a budget protects."""

    node: str
    victims: list[PodInfo]
    violations: int


def by_importance(pods: Sequence[PodInfo]) -> list[PodInfo]:
    """Most important first: by priority, then by how long they have been running."""
    return sorted(pods, key=lambda pod: (-pod.priority, start_time(pod)))


def start_time(pod: PodInfo) -> str:
    """When the Pod started, as RFC 3339 text; all of the same form, so that they compare as text."""
    return pod.pod.status.start_time or NOT_STARTED


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The least harm: fewest violations, then lowest highest priority, sum of priorities, number, latest start."""
    return min(candidates, key=_harm)


def _harm(candidate: Candidate) -> tuple[int, int, int, int, _Latest]:
    highest = candidate.victims[0].priority
    # Shifted, so that many Pods of negative priority do not count as less harm than one.
    total = sum(victim.priority + 2**31 for victim in candidate.victims)
    started = min(start_time(victim) for victim in candidate.victims if victim.priority == highest)
    return candidate.violations, highest, total, len(candidate.victims), _Latest(started)


class _Latest:
    """Orders times from the latest to the earliest."""

    __slots__ = ("_time",)

    def __init__(self, time: str) -> None:
        self._time = time

    def __lt__(self, other: _Latest) -> bool:
        return self._time > other._time

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Latest) and self._time == other._time

    def __hash__(self) -> int:
        return hash(self._time)
