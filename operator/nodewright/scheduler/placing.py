"""Placing one Pod in memory: choosing a node, reserving, counting it there, and taking all of that back."""

from __future__ import annotations

import logging

import msgspec

from . import metrics
from .attempts import Assumption
from .evaluator import Evaluator, Placement, Rejection
from .gang import Gangs
from .plugin import Plugin, PluginError
from .pods import PodInfo
from .preemption.budgets import Budgets
from .preemption.choice import Candidate
from .preemption.finder import Finder, Refused
from .preemption.limits import Limits
from .profile import Profile
from .queue import QueuedPod
from .state import ClusterState

log = logging.getLogger(__name__)

# What kube-scheduler's DynamicResources plugin says after every Pod that fits nowhere and has no claims of devices.
NO_CLAIMS = "no new claims to deallocate"


class Preempting(msgspec.Struct):
    """Evicting would help: whom, and where."""

    candidate: Candidate


class Placing:
    """Decisions that change the picture of the cluster, and nothing else yet."""

    def __init__(self, state: ClusterState, gangs: Gangs) -> None:
        self.state = state
        self.gangs = gangs
        self.budgets = Budgets()
        self.assumed: dict[str, Assumption] = {}
        self._finder = Finder(state, self.budgets)

    def place(self, evaluator: Evaluator, queued: QueuedPod) -> Placement | Rejection:
        """Find a node and assume the Pod there. Raises PluginError; nothing is held then."""
        pod = queued.pod
        outcome = evaluator.place(pod)
        if isinstance(outcome, Placement):
            self._reserve(evaluator.profile, pod, outcome.node)
            self.state.nominated.drop(pod.uid)
            self.state.add_pod(pod, outcome.node)
            self.gangs.placed(pod)
            self.assumed[pod.uid] = Assumption(queued, outcome.node, evaluator.profile.scheduler_name)
        return outcome

    def take_back(self, profile: Profile | None, uid: str) -> Assumption | None:
        """The Pod does not go there after all. Returns what was assumed."""
        assumption = self.assumed.pop(uid, None)
        if assumption is None:
            return None
        pod = assumption.queued.pod
        self.state.remove_pod(uid)
        self.gangs.waits(pod)
        self.unreserve(profile, pod, assumption.node)
        nominated = pod.pod.status.nominated_node_name
        if nominated:
            self.state.nominated.put(pod, nominated)
        return assumption

    def unreserve(self, profile: Profile | None, pod: PodInfo, node: str) -> None:
        """Let plugins give back what they hold for a Pod."""
        for plugin in reversed(profile.reservers if profile is not None else []):
            self._unreserve(plugin, pod, node)

    def find_victims(self, evaluator: Evaluator, pod: PodInfo, rejection: Rejection) -> Preempting | Refused | None:
        """Whom to evict for a Pod that fits nowhere. None where the profile has no preemption."""
        plugin = evaluator.profile.post_filter
        if plugin is None or not rejection.diagnosis.node_count:
            return None
        limits: Limits = getattr(plugin, "limits", Limits())
        started = metrics.now()
        found = self._finder.find(evaluator, pod, rejection, limits)
        metrics.PREEMPTION_ATTEMPTS.inc()
        status = metrics.SUCCESS if isinstance(found, Candidate) else metrics.UNSCHEDULABLE
        name = evaluator.profile.scheduler_name
        metrics.POINT_DURATION.labels(metrics.POST_FILTER, status, name).observe(metrics.now() - started)
        return Preempting(found) if isinstance(found, Candidate) else found

    def nominate(self, pod: PodInfo, node: str) -> list[PodInfo]:
        """Keep a node's room for a Pod. Returns those of lower priority that are not nominated there any more."""
        outranked = [other for other in self.state.nominated.at(node) if other.priority < pod.priority]
        for other in outranked:
            self.state.nominated.drop(other.uid)
        self.state.nominated.put(pod, node)
        return outranked

    def _unreserve(self, plugin: Plugin, pod: PodInfo, node: str) -> None:
        try:
            plugin.unreserve(pod, node, self.state)
        except Exception:  # it must not, and nobody could do better by knowing
            log.exception("plugin failed", extra={"pod": pod.key, "plugin": plugin.name, "point": "unreserve"})

    def _reserve(self, profile: Profile, pod: PodInfo, node: str) -> None:
        for index, plugin in enumerate(profile.reservers):
            try:
                plugin.reserve(pod, node, self.state)
            except Exception as error:  # a plugin's fault stays its Pod's problem, whatever it raises
                for earlier in reversed(profile.reservers[:index]):
                    self._unreserve(earlier, pod, node)
                raise error if isinstance(error, PluginError) else PluginError(plugin.name, "reserve", error) from error


def postfilter_message(refused: Refused | None) -> str:
    """The end of upstream's message: what its PostFilter plugins said, in their order."""
    if refused is None:
        return ""
    return refused.message if refused.is_all else f"{NO_CLAIMS}, preemption: {refused.message}"
