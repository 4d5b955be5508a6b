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
from ..pods import PodInfo
from ..room import Room, fit_plugin, room_only
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
        counting = fit_plugin(evaluator.later)
        self._room = None if counting is None else Room(state, counting, pod)
        self._is_about_room_only = room_only(evaluation, evaluator.later) is not None
        before = evaluator.later[: evaluator.later.index(counting)] if counting is not None else []
        # Whether a shortage is the reason that counts: nobody who is asked earlier has anything to say.
        self._shortage_counts = not any(plugin in evaluation.objectors for plugin in before)

    def promising(self, rows: RowArray) -> tuple[list[int], Counter[str]]:
        """The rows that have Pods of lower priority and would have room without them; for the others, why not."""
        state, priority = self._state, self._pod.priority
        levels, height = state.priorities, state.height
        below = levels.pods_below(priority, height)
        lower = below[rows]
        ok = lower > 0
        reasons = Counter({NO_VICTIMS: int(np.count_nonzero(~ok))})
        if self._room is None or not self._shortage_counts:
            return rows[ok].tolist(), reasons
        requested = {
            name: state.requested[state.resource(name), :height] - levels.requested_below(priority, name, height)
            for name in self._room.wanted
        }
        shortages = self._room.shortages(self._room.ahead(), state.pod_count[:height] - below, requested)
        for reason, short in shortages:
            reasons[reason] += int(np.count_nonzero(short[rows] & (lower > 0)))
            ok &= ~short[rows]
        return rows[ok].tolist(), reasons

    def on(self, row: int) -> Candidate | list[str]:
        """The victims at a row, or the reasons why evicting does not help there. Raises PluginError."""
        lower = [p for p in self._state.pods_at[row].values() if p.priority < self._pod.priority]
        if not lower:
            return [NO_VICTIMS]
        ordered = by_importance(lower)
        by_room = self._is_about_room_only and bool(self._evaluation.passed_by_nodes(np.array([row]))[0])
        if self._room is not None and by_room:
            return self._by_room(self._room, row, ordered)
        return self._by_filters(row, ordered)

    # --- room alone ----------------------------------------------------------------------------------------------

    def _by_room(self, room: Room, row: int, lower: list[PodInfo]) -> Candidate | list[str]:
        ahead = self._state.nominated.ahead_at(self._state.names[row], self._pod)
        if any(pod.terms.anti_affinity for pod in ahead):
            return self._by_filters(row, lower)
        left = room.left(row, away=lower, beside=ahead)
        if short := left.shortages():
            return short
        victims: list[PodInfo] = []
        violations = 0
        violating, others = self._budgets.split(lower)
        for pods, counts in ((violating, 1), (others, 0)):
            for pod in pods:
                if left.has_room_for(pod):
                    left.take(pod)
                else:
                    victims.append(pod)
                    violations += counts
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
