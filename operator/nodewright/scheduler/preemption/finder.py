"""Whether evicting Pods would make room for one that fits nowhere, and where it does least harm."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from ..diagnosis import Diagnosis
from ..evaluator import Evaluator, Rejection
from ..pods import PodInfo
from ..state import ClusterState
from .budgets import Budgets
from .choice import Candidate, best
from .dry_run import NO_VICTIMS, DryRun
from .limits import Limits

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NEVER = "not eligible due to preemptionPolicy=Never."
ALL = Limits(100, 0)
STILL_ENDING = "not eligible due to a terminating pod on the nominated node."
# kube-scheduler's DynamicResources fails so in its PostFilter when the Pod was rejected before its PreFilter could run,
# and preemption is then not tried.
NOT_PREPARED = "not found"
DEVICES = "DynamicResources"


class Refused(msgspec.Struct):
    """No preemption, and why, in upstream's words.

    `keeps_nomination`: earlier victims are still ending. `is_all`: no other plugin has a word beside this one.
    """

    message: str
    keeps_nomination: bool
    is_all: bool = False


class Finder:
    """Finds victims. Starts at another node each time, as upstream does: in large clusters candidates differ."""

    def __init__(self, state: ClusterState, budgets: Budgets) -> None:
        self._state = state
        self._budgets = budgets
        self._turn = 0

    def find(self, evaluator: Evaluator, pod: PodInfo, rejection: Rejection, limits: Limits) -> Candidate | Refused:
        """The node to preempt on and its victims. The state is as before afterwards. Raises PluginError."""
        if _is_rejected_early(evaluator, rejection):
            return Refused(NOT_PREPARED, True, is_all=True)
        if pod.spec.preemption_policy == "Never":
            return Refused(NEVER, True)
        if self._waits_for_victims(pod, rejection):
            return Refused(STILL_ENDING, True)
        candidates, reasons = self._candidates(evaluator, pod, rejection, limits)
        if candidates:
            return best(candidates)
        total = self._state.node_count
        reasons[NOT_HELPFUL] += total - len(rejection.resolvable)
        return Refused(Diagnosis(total, +reasons).message(), False)

    def all_candidates(
        self, evaluator: Evaluator, pod: PodInfo, rejection: Rejection, limits: Limits = ALL
    ) -> list[Candidate]:
        """The nodes where evicting would help, every one of them by default; for explanations. Raises PluginError."""
        return self._candidates(evaluator, pod, rejection, limits)[0]

    # --- inside --------------------------------------------------------------------------------------------------

    def _waits_for_victims(self, pod: PodInfo, rejection: Rejection) -> bool:
        """Whether Pods that were evicted for this one are still ending on its nominated node."""
        row = self._state.rows.get(pod.pod.status.nominated_node_name or self._state.nominated.node_of(pod.uid))
        if row is None or row not in rejection.resolvable:
            return False  # upstream: a nominated node that can't be resolved means looking for another
        return any(
            other.priority < pod.priority and is_ending_by_preemption(other)
            for other in self._state.pods_at[row].values()
        )

    def _candidates(
        self, evaluator: Evaluator, pod: PodInfo, rejection: Rejection, limits: Limits
    ) -> tuple[list[Candidate], Counter[str]]:
        rows, evaluation = rejection.resolvable, rejection.evaluation
        reasons: Counter[str] = Counter()
        if not rows or evaluation is None:
            return [], reasons
        if not self._state.priorities.any_below(pod.priority):
            reasons[NO_VICTIMS] = len(rows)
            return [], reasons
        wanted = limits.of(len(rows))
        trial = DryRun(self._state, evaluator, evaluation, pod, self._budgets)
        promising, reasons = trial.promising(np.array(rows, dtype=np.intp))
        self._turn += 1
        offset = (self._turn * 7919) % len(promising) if promising else 0
        found: list[Candidate] = []
        for row in (*promising[offset:], *promising[:offset]):
            answer = trial.on(row)
            if isinstance(answer, Candidate):
                found.append(answer)
                if len(found) >= wanted and any(not candidate.violations for candidate in found):
                    break
            else:
                reasons.update(answer)
        return found, reasons


def _is_rejected_early(evaluator: Evaluator, rejection: Rejection) -> bool:
    """Whether the Pod was rejected before nodes were looked at, by a plugin that comes before DynamicResources."""
    if not rejection.diagnosis.prefilter_message:
        return False
    order = list(evaluator.profile.plugins)
    return DEVICES in order and rejection.diagnosis.plugins <= set(order[: order.index(DEVICES)])


def is_ending_by_preemption(pod: PodInfo) -> bool:
    """Whether a Pod is ending because the scheduler evicted it."""
    if pod.pod.metadata.deletion_timestamp is None:
        return False
    condition = next((c for c in pod.pod.status.conditions if c.type == "DisruptionTarget"), None)
    return condition is not None and condition.status == "True" and condition.reason == "PreemptionByScheduler"
