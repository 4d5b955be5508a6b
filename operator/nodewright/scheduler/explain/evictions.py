"""What preemption would do for a Pod that fits nowhere."""

from __future__ import annotations

from ..evaluator import Evaluator, Rejection
from ..pods import PodInfo
from ..preemption.budgets import Budgets
from ..preemption.choice import Candidate, best
from ..preemption.finder import Finder, Refused
from ..preemption.limits import Limits
from ..state import ClusterState
from .answer import Eviction, Preemption, Victim

NO_PREEMPTION = "the profile has no plugin at postFilter"


def preemption(
    state: ClusterState, evaluator: Evaluator, pod: PodInfo, rejection: Rejection, budgets: Budgets
) -> tuple[Preemption, Refused | None]:
    """All nodes where evicting would help, and what upstream says where none would. Raises PluginError."""
    plugin = evaluator.profile.post_filter
    if plugin is None:
        return Preemption(helps=False, why=NO_PREEMPTION), None
    finder = Finder(state, budgets)
    limits: Limits = getattr(plugin, "limits", Limits())
    found = finder.find(evaluator, pod, rejection, limits)
    if isinstance(found, Refused):
        return Preemption(helps=False, why=found.message), found
    candidates = finder.all_candidates(evaluator, pod, rejection)
    chosen = best(candidates)
    ordered = sorted(candidates, key=lambda c: (c is not chosen, c.violations, len(c.victims), c.node))
    evictions = [_eviction(candidate, budgets, candidate is chosen) for candidate in ordered]
    return Preemption(helps=True, candidates=evictions, considered=limits.of(len(rejection.resolvable))), None


def _eviction(candidate: Candidate, budgets: Budgets, chosen: bool) -> Eviction:
    victims = [
        Victim(pod=v.key, priority=v.priority, budgets=[budget.metadata.name for budget in budgets.covering(v)])
        for v in candidate.victims
    ]
    return Eviction(node=candidate.node, victims=victims, violations=candidate.violations, chosen=chosen)
