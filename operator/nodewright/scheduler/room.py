"""Where only room is at stake: resources and the number of Pods, counted in numbers instead of asking filters.

Filters are asked about arrays, which is quick for many nodes and slow for one node at a time. Nominated Pods and the
dry runs of preemption look at single nodes again and again, and mostly nothing but NodeResourcesFit has a say there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .evaluation import Evaluation
from .plugin import Plugin
from .plugins.node_resources_fit import TOO_MANY_PODS, NodeResourcesFit
from .pods import PodInfo
from .state import ClusterState
from .state.arrays import BoolArray, IntArray

_OURS = "nodewright.scheduler.plugins."


class Room:
    """What one Pod wants of a node's room. `wanted` has amounts per resource, without ignored ones."""

    __slots__ = ("_pod", "_state", "wanted")

    def __init__(self, state: ClusterState, plugin: NodeResourcesFit, pod: PodInfo) -> None:
        self._state = state
        self._pod = pod
        self.wanted = plugin.wanted(pod)

    def ahead(self) -> Ahead:
        """What nominated Pods that go before this one take, at all rows."""
        return Ahead(self._state, self._pod, self.wanted)

    def shortages(self, ahead: Ahead, pods: IntArray, requested: dict[str, IntArray]) -> list[tuple[str, BoolArray]]:
        """Per reason, the rows that are short of something when those are there as well, and this Pod.

        `pods` and `requested` are what else is at each row.
        """
        state, height = self._state, self._state.height
        found = [(TOO_MANY_PODS, pods + ahead.pods >= state.pod_limit[:height])]
        for name, amount in self.wanted.items():
            needed = requested[name] + ahead.amounts[name] + amount
            found.append((f"Insufficient {name}", needed > state.allocatable[state.resource(name), :height]))
        return found

    def left(self, row: int, away: Sequence[PodInfo] = (), beside: Iterable[PodInfo] = ()) -> Left:
        """What is left at a row once the Pod is there, some others are not, and some more are."""
        state = self._state
        slots = int(state.pod_limit[row] - state.pod_count[row]) + len(away) - 1
        amounts = {}
        for name, amount in self.wanted.items():
            index = state.resource(name)
            amounts[name] = int(state.allocatable[index, row] - state.requested[index, row]) - amount
        left = Left(slots, amounts)
        for pod in away:
            left.add(pod, 1)
        for pod in beside:
            left.take(pod)
        return left


class Ahead:
    """Nominated Pods that go before another one: how many at each row, and what they take of the given resources.

    `has_terms`: one of them keeps others away by anti-affinity, so that numbers do not say it all.
    """

    __slots__ = ("amounts", "has_terms", "pods")

    def __init__(self, state: ClusterState, pod: PodInfo, resources: Iterable[str]) -> None:
        rows: list[int] = []
        taken: dict[str, list[int]] = {name: [] for name in resources}
        self.has_terms = False
        for node, ahead in state.nominated.ahead_of(pod) if len(state.nominated) else ():
            row = state.rows.get(node)
            if row is None:
                continue
            for other in ahead:
                rows.append(row)
                self.has_terms = self.has_terms or bool(other.terms.anti_affinity)
                for name, amounts in taken.items():
                    amounts.append(other.template.requests.get(name, 0))
        at, height = np.array(rows, dtype=np.intp), state.height
        self.pods: IntArray = np.bincount(at, minlength=height)
        # Sums as floating-point numbers are exact below 2**53.
        self.amounts: dict[str, IntArray] = {
            name: np.bincount(at, weights=amounts, minlength=height).astype(np.int64) for name, amounts in taken.items()
        }


class Left:
    """Pods and amounts that a node could take on top; below zero where it is too little."""

    __slots__ = ("amounts", "slots")

    def __init__(self, slots: int, amounts: dict[str, int]) -> None:
        self.slots = slots
        self.amounts = amounts

    def add(self, pod: PodInfo, sign: int) -> None:
        """A Pod's requests become free (1) or taken (-1)."""
        requests = pod.template.requests
        for name in self.amounts:
            amount = requests.get(name)
            if amount:
                self.amounts[name] += sign * amount

    def take(self, pod: PodInfo) -> None:
        """One more Pod is there."""
        self.slots -= 1
        self.add(pod, -1)

    def has_room_for(self, pod: PodInfo) -> bool:
        """Whether one more Pod fits without pushing out the one that this is about."""
        requests = pod.template.requests
        return self.slots > 0 and all(requests.get(name, 0) <= amount for name, amount in self.amounts.items())

    def shortages(self) -> list[str]:
        """The reasons of NodeResourcesFit, none where it is enough."""
        short = [TOO_MANY_PODS] if self.slots < 0 else []
        return short + [f"Insufficient {name}" for name, amount in self.amounts.items() if amount < 0]


def fit_plugin(plugins: Iterable[Plugin]) -> NodeResourcesFit | None:
    """The plugin that counts room, where it is one of these and upstream's."""
    return next((plugin for plugin in plugins if type(plugin) is NodeResourcesFit), None)


def room_only(evaluation: Evaluation, later: Sequence[Plugin]) -> NodeResourcesFit | None:
    """The plugin that counts room, if no other filter of Pods at nodes (`later`) has a say about this Pod.

    Ours that had nothing to object before have nothing to object whatever Pods come or go, but for placed Pods'
    anti-affinity, which callers look at. Of other people's filters that is not known.
    """
    if any(not type(plugin).__module__.startswith(_OURS) for plugin in later):
        return None
    objectors = evaluation.objectors
    return fit_plugin(objectors) if len(objectors) == 1 else None
