"""What Pods of each priority hold at each node, so that preemption need not look at every Pod."""

from __future__ import annotations

import numpy as np

from ..pods import PodInfo
from .arrays import IntArray, grown


class Level:
    """The Pods of one priority: how many at each row, and what they request."""

    __slots__ = ("pods", "requested", "total")

    def __init__(self, capacity: int) -> None:
        self.total = 0
        self.pods: IntArray = np.zeros(capacity, dtype=np.int64)
        self.requested: dict[str, IntArray] = {}


class PriorityLevels:
    """Levels by priority. Clusters have few."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._levels: dict[int, Level] = {}

    def change(self, row: int, pod: PodInfo, sign: int) -> None:
        """A Pod came to a row (1) or left it (-1)."""
        level = self._levels.get(pod.priority)
        if level is None:
            level = self._levels[pod.priority] = Level(self._capacity)
        level.pods[row] += sign
        level.total += sign
        for name, amount in pod.template.requests.items():
            held = level.requested.get(name)
            if held is None:
                held = level.requested[name] = np.zeros(self._capacity, dtype=np.int64)
            held[row] += sign * amount
        if not level.total:
            del self._levels[pod.priority]

    def any_below(self, priority: int) -> bool:
        """Whether there is any Pod of lower priority."""
        return any(level < priority for level in self._levels)

    def pods_below(self, priority: int, height: int) -> IntArray:
        """How many Pods of lower priority each row has."""
        total = np.zeros(height, dtype=np.int64)
        for value, level in self._levels.items():
            if value < priority:
                total += level.pods[:height]
        return total

    def requested_below(self, priority: int, resource: str, height: int) -> IntArray:
        """How much of a resource Pods of lower priority request at each row."""
        total = np.zeros(height, dtype=np.int64)
        for value, level in self._levels.items():
            if value < priority and resource in level.requested:
                total += level.requested[resource][:height]
        return total

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self._capacity = capacity
        for level in self._levels.values():
            level.pods = grown(level.pods, capacity)
            level.requested = {name: grown(held, capacity) for name, held in level.requested.items()}
