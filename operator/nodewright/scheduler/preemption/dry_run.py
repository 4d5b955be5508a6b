"""Trying out on one node which Pods would have to go (upstream: SelectVictimsOnNode).

All Pods of lower priority are taken away; if the Pod fits then, they are put back one by one, the most important first,
and those that do not fit beside it any more are the victims. Where only room is at stake this is arithmetic on a few
numbers; otherwise it is done in the scheduler's own picture, which is as before afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .. import cycle
from ..evaluation import Evaluation
from ..evaluator import Evaluator
from ..plugin import Plugin
from ..plugins.node_resources_fit import TOO_MANY_PODS, NodeResourcesFit
from ..pods import PodInfo
from ..state import ClusterState
from ..state.arrays import RowArray
from .budgets import Budgets
from .choice import Candidate, by_importance

NO_VICTIMS = "No preemption victims found for incoming pod"


class DryRun:
    """One Pod, tried on one node after another."""

    def __init__(
        self, state: ClusterState, evaluator: Evaluator, evaluation: Evaluation, pod: PodInfo, budgets: Budgets
    ) -> None:
        self._state = state
        self._evaluator = evaluator
        self._evaluation = evaluation
        self._pod = pod
        self._budgets = budgets
        active = self._active()
        room = next((plugin for plugin in active if type(plugin) is NodeResourcesFit), None)
        self._counts_room = room is not None
        # Nothing but resources and the number of Pods can keep this Pod off a node by way of other Pods.
        self._about_room_only = len(active) == 1 and room is not None
        self._wanted = room.wanted(pod) if room is not None else {}

    def promising(self, rows: RowArray) -> tuple[list[int], Counter[str]]:
        """The rows that have Pods of lower priority and would have room without them; for the others, why not."""
        state, priority = self._state, self._pod.priority
        levels, height = state.priorities, state.height
        lower = levels.pods_below(priority, height)[rows]
        ok = lower > 0
        reasons = Counter({NO_VICTIMS: int(np.count_nonzero(~ok))})
        if not self._counts_room:
            return [int(row) for row in rows[ok]], reasons
        shortages = [(TOO_MANY_PODS, state.pod_count[rows] - lower >= state.pod_limit[rows])]
        for name, amount in self._wanted.items():
            index = state.resource(name)
            left = state.requested[index, rows] - levels.requested_below(priority, name, height)[rows]
            shortages.append((f"Insufficient {name}", left + amount > state.allocatable[index, rows]))
        for reason, short in shortages:
            reasons[reason] += int(np.count_nonzero(short & (lower > 0)))
            ok &= ~short
        return [int(row) for row in rows[ok]], reasons

    def on(self, row: int) -> Candidate | list[str]:
        """The victims at a row, or the reasons why evicting does not help there. Raises PluginError."""
        lower = [p for p in self._state.pods_at[row].values() if p.priority < self._pod.priority]
        if not lower:
            return [NO_VICTIMS]
        ordered = by_importance(lower)
        return self._by_room(row, ordered) if self._about_room_only else self._by_filters(row, ordered)

    # --- room alone ----------------------------------------------------------------------------------------------

    def _by_room(self, row: int, lower: list[PodInfo]) -> Candidate | list[str]:
        state, wanted = self._state, self._wanted
        slots = int(state.pod_limit[row] - state.pod_count[row]) + len(lower) - 1
        free = {
            name: int(state.allocatable[index, row] - state.requested[index, row]) - amount
            for name, amount in wanted.items()
            for index in (state.resource(name),)
        }
        for pod in lower:
            _add(free, pod, 1)
        for other in state.nominated.at(state.names[row]):
            if other.priority >= self._pod.priority and other.uid != self._pod.uid:
                _add(free, other, -1)
                slots -= 1
        short = [TOO_MANY_PODS] if slots < 0 else []
        short += [f"Insufficient {name}" for name, amount in free.items() if amount < 0]
        if short:
            return short
        victims: list[PodInfo] = []
        violating, others = self._budgets.split(lower)
        violations = 0
        for pod in (*violating, *others):
            requests = pod.template.requests
            if slots > 0 and all(requests.get(name, 0) <= amount for name, amount in free.items()):
                _add(free, pod, -1)
                slots -= 1
            else:
                victims.append(pod)
                violations += pod in violating
        return self._candidate(row, victims, violations)

    # --- everything ----------------------------------------------------------------------------------------------

    def _by_filters(self, row: int, lower: list[PodInfo]) -> Candidate | list[str]:
        state, node = self._state, self._state.names[row]
        away = {pod.uid: pod for pod in lower}
        for pod in lower:
            state.remove_pod(pod.uid)
        try:
            if not self._fits(row):
                return self._reasons(row)
            victims: list[PodInfo] = []
            violations = 0
            violating, others = self._budgets.split(lower)
            for pod in (*violating, *others):
                state.add_pod(away.pop(pod.uid), node)
                if not self._fits(row):
                    state.remove_pod(pod.uid)
                    away[pod.uid] = pod
                    victims.append(pod)
                    violations += pod in violating
            return self._candidate(row, victims, violations)
        finally:
            for pod in away.values():
                state.add_pod(pod, node)

    def _fits(self, row: int) -> bool:
        return self._evaluator.fits(self._evaluation, self._pod, row)

    def _reasons(self, row: int) -> list[str]:
        failures = self._evaluator.failures_at(self._evaluation, self._pod, row)
        return list(cycle.count_reasons(failures))

    def _candidate(self, row: int, victims: Sequence[PodInfo], violations: int) -> Candidate | list[str]:
        if not victims:
            return [NO_VICTIMS]
        return Candidate(self._state.names[row], by_importance(victims), violations)

    def _active(self) -> list[Plugin]:
        """The filters of Pods at nodes that have anything to say about this Pod."""
        ctx = self._evaluation.context(self._pod)
        return [plugin for plugin in self._evaluator.later if cycle.run_filter(plugin, ctx) is not None]


def _add(free: dict[str, int], pod: PodInfo, sign: int) -> None:
    for name, amount in pod.template.requests.items():
        if name in free:
            free[name] += sign * amount
