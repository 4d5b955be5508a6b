"""The scheduler core, run until nothing moves any more; what the cluster would do then is done in memory."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..attempts import Attempt, Skipped
from ..core import SchedulerCore
from ..diagnosis import Diagnosis
from ..evaluator import Placement
from ..objects import Pod
from ..plugin import PluginError
from ..pods import PodInfo
from ..preemption.choice import Candidate

GATED = "Scheduling is blocked due to non-empty scheduling gates"


class Eviction(msgspec.Struct):
    """A Pod that was evicted, where, for whom, and against which budgets."""

    victim: PodInfo
    node: str
    by: PodInfo
    violates: list[str]


class Run:
    """One run on a core whose clock stands still: priority decides, then the order in which Pods are given.

    Victims of preemption leave at once, as if they had no grace period; nobody makes them anew.
    """

    def __init__(self, core: SchedulerCore) -> None:
        self._core = core
        self.nodes: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        self.evictions: list[Eviction] = []
        self._placements = 0

    def schedule(self, pods: Iterable[Pod]) -> None:
        """Try all these Pods until none can be placed any more."""
        tried: list[str] = []
        for pod in pods:
            self._core.on_pod(None, pod)
            tried.append(pod.metadata.uid)
            if pod.spec.scheduling_gates:
                self.messages[pod.metadata.uid] = GATED
        self._drain()
        before = -1
        while before != self._placements:
            # Nobody waits for five minutes here, so everybody gets another try at the end, whatever it waits for.
            before = self._placements
            for uid in tried:
                self._core.queue.activate(uid)
            self._drain()

    def _drain(self) -> None:
        idle = 0
        # Pods in backoff are handed out as long as nothing is active, so those that fail come again and again.
        while idle <= 2 * (len(self._core.queue) + 1):
            attempt = self._core.attempt()
            if attempt is None:
                return
            idle = 0 if self._settle(attempt) else idle + 1

    def _settle(self, attempt: Attempt) -> bool:
        """Do what the cluster would do. True when that may help others."""
        pod, outcome = attempt.pod, attempt.outcome
        if isinstance(outcome, Placement):
            self.messages.pop(pod.uid, None)
            self.nodes[pod.uid] = outcome.node
            self._placements += 1
            spec = msgspec.structs.replace(pod.spec, node_name=outcome.node)
            self._core.on_pod(pod.pod, msgspec.structs.replace(pod.pod, spec=spec))
            return True
        if isinstance(outcome, Diagnosis):
            self.messages[pod.uid] = outcome.message()
        elif isinstance(outcome, PluginError):
            self.messages[pod.uid] = str(outcome)
        elif isinstance(outcome, Skipped):
            self.messages[pod.uid] = outcome.reason
        if attempt.preemption is not None:
            self._evict(attempt.preemption, pod)
        return attempt.preemption is not None

    def _evict(self, candidate: Candidate, preemptor: PodInfo) -> None:
        budgets = self._core.placing.budgets
        for victim in candidate.victims:
            covering = list(budgets.covering(victim))
            violates = [budget.metadata.name for budget in covering if budget.status.disruptions_allowed <= 0]
            for budget in covering:
                left = max(budget.status.disruptions_allowed - 1, 0)
                status = msgspec.structs.replace(budget.status, disruptions_allowed=left)
                self._core.on_budget(budget, msgspec.structs.replace(budget, status=status))
            self.evictions.append(Eviction(victim, candidate.node, preemptor, violates))
            self.nodes.pop(victim.uid, None)
            self._core.on_pod(victim.pod, None)
        self._core.evicted(preemptor.uid, complete=True)
