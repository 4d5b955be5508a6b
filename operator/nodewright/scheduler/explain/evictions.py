"""What preemption would do for a Pod that fits nowhere."""

from __future__ import annotations

from ..evaluator import Evaluator, Rejection
from ..pods import PodInfo
from ..preemption.budgets import Budgets
from ..preemption.choice import Candidate
from ..preemption.finder import ALL, Finder, Refused
from ..preemption.limits import Limits
from ..state import ClusterState
from .answer import Eviction, Preemption, Victim

# What kube-scheduler's messages say then ("not found") helps nobody.
NOT_TRIED = "not tried: no node was looked at, for the reason above"
NO_PREEMPTION = "the profile has no plugin at postFilter"


def preemption(
    state: ClusterState, evaluator: Evaluator, pod: PodInfo, rejection: Rejection, budgets: Budgets, *, complete: bool
) -> tuple[Preemption, Refused | None]:
    """The nodes where evicting would help, and what upstream says where none would. Raises PluginError.

    All of them if `complete`, else as many as the scheduler would look at.
    """
    plugin = evaluator.profile.post_filter
    if plugin is None:
        return Preemption(helps=False, why=NO_PREEMPTION), None
    finder = Finder(state, budgets)
    limits: Limits = getattr(plugin, "limits", Limits())
    found = finder.find(evaluator, pod, rejection, limits)
    if isinstance(found, Refused):
        return Preemption(helps=False, why=NOT_TRIED if found.is_all else found.message), found
    candidates = finder.all_candidates(evaluator, pod, rejection, ALL if complete else limits)
    # Among equals the scheduler takes the one that it has found first.
    chosen = next((c for c in candidates if c.node == found.node), candidates[0])
    ordered = sorted(candidates, key=lambda c: (c is not chosen, c.violations, len(c.victims), c.node))
    evictions = [_eviction(candidate, budgets, candidate is chosen) for candidate in ordered]
    considered = limits.of(len(rejection.resolvable))
    is_all = considered >= len(rejection.resolvable)
    return Preemption(helps=True, candidates=evictions, considered=0 if is_all else considered), None


def _eviction(candidate: Candidate, budgets: Budgets, chosen: bool) -> Eviction:
    victims = [
        Victim(pod=v.key, priority=v.priority, budgets=[budget.metadata.name for budget in budgets.covering(v)])
        for v in candidate.victims
    ]
    return Eviction(node=candidate.node, victims=victims, violations=candidate.violations, chosen=chosen)
