"""PodDisruptionBudgets: kept where possible, not at all costs (upstream's rule for preemption)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..pods import PodInfo
from ..world_objects import DisruptionBudget


class Budgets:
    """All PodDisruptionBudgets, by namespace."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, dict[str, DisruptionBudget]] = {}

    def set(self, old: DisruptionBudget | None, new: DisruptionBudget | None) -> None:
        """A budget appeared, changed or went away (None)."""
        if old is not None and new is None:
            self._by_namespace.get(old.metadata.namespace, {}).pop(old.metadata.name, None)
        elif new is not None:
            self._by_namespace.setdefault(new.metadata.namespace, {})[new.metadata.name] = new

    def split(self, pods: Sequence[PodInfo]) -> tuple[list[PodInfo], list[PodInfo]]:
        """Pods whose eviction would violate a budget, and the others, in the given order (most important first).

        Each Pod uses up one of the disruptions that its budgets allow, so the order decides.
        """
        if not any(pod.pod.metadata.namespace in self._by_namespace for pod in pods):
            return [], list(pods)
        left: dict[tuple[str, str], int] = {}
        violating: list[PodInfo] = []
        others: list[PodInfo] = []
        for pod in pods:
            violates = False
            for budget in self.covering(pod):
                key = (budget.metadata.namespace, budget.metadata.name)
                left[key] = left.get(key, budget.status.disruptions_allowed) - 1
                violates |= left[key] < 0
            (violating if violates else others).append(pod)
        return violating, others

    def covering(self, pod: PodInfo) -> Iterable[DisruptionBudget]:
        """The budgets that count a Pod; those that know of its disruption already do not."""
        meta = pod.pod.metadata
        if not meta.labels:
            return
        for budget in self._by_namespace.get(meta.namespace, {}).values():
            selector = budget.spec.selector
            if selector is None or not (selector.match_labels or selector.match_expressions):
                continue  # for preemption, an empty selector protects nothing
            if selector.matches(meta.labels) and meta.name not in budget.status.disrupted_pods:
                yield budget
