"""The scheduler without I/O: what it is told by watches, what it decides, and what became of its decisions.

`SchedulerCore` is driven by a thin shell (`service`): watch handlers call its `on_...` methods, the loop calls
`attempt`, and the outcome of a binding or an eviction comes back. Everything it knows is derived from the API, so that
a restart at any moment loses nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from . import events, metrics
from .attempts import Assumption, Attempt, Skipped
from .diagnosis import Diagnosis
from .evaluator import Evaluator, Placement, Rejection
from .events import Event
from .gang import GangError, Gangs, gang_key, gang_spec
from .gang_cycle import GangCycle
from .objects import Node, Pod
from .placing import Placing, Preempting, postfilter_message
from .plugin import PluginError
from .pods import PodFactory, PodInfo
from .profile import Profile
from .queue import QueuedPod, SchedulingQueue
from .state import ClusterState
from .world_objects import DisruptionBudget, Namespace, SelectorOwner, Service

log = logging.getLogger(__name__)

POD_KINDS = Event.POD_ADD | Event.POD_DELETE | Event.POD_LABEL | Event.POD_SCALE_DOWN


class SchedulerCore:
    """State, queue and decisions of one scheduler process, for all its profiles."""

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        clock: Callable[[], float],
        queue: SchedulingQueue | None = None,
        on_work: Callable[[], None] | None = None,
    ) -> None:
        """`clock` gives seconds and never goes back; `on_work` is called whenever a Pod may have become active."""
        self.state = ClusterState()
        self.queue = SchedulingQueue(clock) if queue is None else queue  # an empty queue is false
        self.factory = PodFactory()
        self.gangs = Gangs()
        self.placing = Placing(self.state, self.gangs)
        # Pods with evictions under way on their behalf, and the Pods to be evicted.
        self.preempting: dict[str, set[str]] = {}
        self._clock = clock
        self._on_work = on_work or (lambda: None)
        self._evaluators: dict[str, Evaluator] = {}
        self._ready: deque[Attempt] = deque()
        self.set_profiles(profiles, ())

    @property
    def assumed(self) -> dict[str, Assumption]:
        """Pods that count at a node since we decided so, by UID."""
        return self.placing.assumed

    # --- what the cluster tells ----------------------------------------------------------------------------------

    def set_profiles(self, profiles: Mapping[str, Profile], pods: Iterable[Pod]) -> None:
        """Serve these profiles, by schedulerName, from now on; `pods` are all Pods known."""
        before = self._evaluators
        self._evaluators = {
            name: before[name] if name in before and before[name].profile is profile else Evaluator(profile, self.state)
            for name, profile in profiles.items()
        }
        for pod in pods:
            if pod.spec.node_name or pod.metadata.uid in self.assumed:
                continue
            if pod.spec.scheduler_name not in self._evaluators:
                self.queue.delete(pod.metadata.uid)
                self.gangs.gone(pod.metadata.uid)
            elif before.get(pod.spec.scheduler_name) is not self._evaluators[pod.spec.scheduler_name]:
                self.on_pod(None, pod)

    def profile(self, name: str) -> Profile | None:
        """The profile of a schedulerName, or None when it is not served."""
        evaluator = self._evaluators.get(name)
        return evaluator.profile if evaluator else None

    def on_node(self, old: Node | None, new: Node | None) -> None:
        """A node appeared, changed or went away (None)."""
        if new is None:
            assert old is not None
            self.state.remove_node(old.metadata.name)
        else:
            try:
                if not self.state.set_node(new):
                    return
            except ValueError as error:
                # Without readable amounts nothing may be placed there; its Pods keep counting.
                log.error("ignoring node", extra={"node": new.metadata.name, "error": str(error)})
                self.state.remove_node(new.metadata.name)
        self.happened(events.node_events(old, new))

    def on_namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        """A namespace appeared, changed or went away (None)."""
        some = new or old
        assert some is not None
        if self.state.counts.set_namespace(some.metadata.name, new.metadata.labels if new else None):
            self.world_changed(Event.NAMESPACE)

    def on_service(self, old: Service | None, new: Service | None) -> None:
        """A Service appeared, changed or went away (None): it decides among which Pods others are spread."""
        if self.state.owners.set_service(old, new):
            self.world_changed(Event.NONE)

    def on_owner(self, kind: tuple[str, str], old: SelectorOwner | None, new: SelectorOwner | None) -> None:
        """A controller of this (apiVersion, kind) appeared, changed or went away (None)."""
        if self.state.owners.set_owner(kind, old, new):
            self.world_changed(Event.NONE)

    def on_budget(self, old: DisruptionBudget | None, new: DisruptionBudget | None) -> None:
        """A PodDisruptionBudget appeared, changed or went away (None)."""
        self.placing.budgets.set(old, new)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """A Pod appeared, changed or went away (None)."""
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._gone(old.metadata.uid)
        if new is None:
            return
        if events.is_finished(new):
            self._gone(new.metadata.uid)
            return
        try:
            info = self.factory.info(new)
        except ValueError as error:
            log.error("ignoring pod", extra={"pod": new.key, "error": str(error)})
            return
        if info.node_name:
            self._is_bound(info)
        elif new.spec.scheduler_name in self._evaluators:
            self._is_pending(old, info)

    def _is_bound(self, info: PodInfo) -> None:
        counted = self.state.pods.get(info.uid)
        is_news = self.assumed.pop(info.uid, None) is not None or counted is None
        self.queue.delete(info.uid)
        self.state.nominated.drop(info.uid)
        self.gangs.placed(info)
        self.state.add_pod(info, info.node_name)
        if is_news:
            self.happened(Event.POD_ADD, info)
        elif counted is not None and (kinds := events.bound_pod_events(counted[1], info)):
            self.happened(kinds, info)

    def _is_pending(self, old: Pod | None, info: PodInfo) -> None:
        assumption = self.assumed.get(info.uid)
        if assumption is not None:
            assumption.queued.pod = info  # in case the binding fails and the Pod has to be tried again
            return
        nominated = info.pod.status.nominated_node_name
        if nominated != (old.status.nominated_node_name if old is not None else ""):
            self.state.nominated.put(info, nominated) if nominated else self.state.nominated.drop(info.uid)
        elif known_node := self.state.nominated.node_of(info.uid):
            self.state.nominated.put(info, known_node)
        is_new_member = self.gangs.waits(info)
        known = self.queue.get(info.uid)
        if known is None or not _same_for_plugins(known.pod, info):
            self.queue.add(info)
            self._on_work()
        else:
            self.queue.update(info)
        if is_new_member:
            self._wake_gang(info)

    def _wake_gang(self, info: PodInfo) -> None:
        key = gang_key(info)
        for uid in self.gangs.waiting(key) if key is not None else ():
            self.queue.activate(uid)

    def _gone(self, uid: str) -> None:
        self.queue.delete(uid)
        self.gangs.gone(uid)
        self.preempting.pop(uid, None)
        had_prospect = self.state.nominated.drop(uid)
        assumption = self.assumed.pop(uid, None)
        if assumption is not None:
            profile = self.profile(assumption.profile)
            self.placing.unreserve(profile, assumption.queued.pod, assumption.node)
        pod = self.state.remove_pod(uid)
        if pod is not None:
            self.happened(Event.POD_DELETE, pod)
        elif had_prospect:
            self.happened(Event.POD_DELETE)

    def world_changed(self, kinds: Event) -> None:
        """Something that is neither Pod nor node changed in a way that decisions may see."""
        self.state.world_generation += 1
        self.happened(kinds)

    def happened(self, kinds: Event, other: PodInfo | None = None) -> None:
        """Let Pods that wait for one of these events be tried again; `other` is the placed Pod that it is about."""
        if not kinds:
            return
        helps = None
        if other is not None and not kinds & ~POD_KINDS:

            def helps(queued: QueuedPod) -> bool:
                return self._helps(queued, kinds, other)

        if self.queue.on_event(kinds, helps):
            self._on_work()

    def _helps(self, queued: QueuedPod, kinds: Event, other: PodInfo) -> bool:
        profile = self.profile(queued.pod.spec.scheduler_name)
        if profile is None:
            return True
        for name in queued.plugins:
            plugin = profile.plugins.get(name)
            if plugin is None:
                return True
            seen = plugin.events & kinds
            if seen and plugin.wakes(queued.pod, seen, other, self.state):
                return True
        return not queued.plugins

    # --- what we decide ------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Call it once all that exists is known: gangs that a predecessor placed in part go before other Pods."""
        for uid in self.gangs.incomplete():
            self.queue.prefer(uid)

    def attempt(self) -> Attempt | None:
        """Run one cycle for the next Pod. A placed Pod is assumed, any other is back in the queue. None: no Pod.

        A gang's cycle gives one attempt for each member; they come one after another.
        """
        if self._ready:
            return self._ready.popleft()
        queued = self.queue.pop()
        if queued is None:
            return None
        metrics.SAMPLER.next_cycle()
        started = self._clock()
        pod = queued.pod
        name = pod.spec.scheduler_name
        if pod.pod.metadata.deletion_timestamp is not None:
            return Attempt(queued, name, Skipped(f"skip schedule deleting pod: {pod.key}"), self._clock() - started)
        evaluator = self._evaluators.get(name)
        if evaluator is None:
            why = Skipped(f"no profile serves schedulerName {name!r}")
            return Attempt(queued, name, why, self._clock() - started)
        if gang_key(pod) is not None:
            attempts = self._attempt_gang(evaluator, queued)
            seconds = (self._clock() - started) / len(attempts)
            for attempt in attempts:
                attempt.seconds = seconds
            self._ready.extend(attempts)
            return self._ready.popleft()
        attempt = self._attempt_one(evaluator, queued)
        attempt.seconds = self._clock() - started
        return attempt

    def _attempt_one(self, evaluator: Evaluator, queued: QueuedPod) -> Attempt:
        name = evaluator.profile.scheduler_name
        try:
            outcome = self.placing.place(evaluator, queued)
            if isinstance(outcome, Placement):
                return Attempt(queued, name, outcome, 0.0)
            found = self.placing.find_victims(evaluator, queued.pod, outcome)
        except PluginError as error:
            self.queue.put_error(queued)
            return Attempt(queued, name, error, 0.0)
        self.put_back(evaluator, queued, outcome)
        attempt = Attempt(queued, name, outcome.diagnosis, 0.0)
        if isinstance(found, Preempting):
            self.preempt(attempt, found)
        elif found is not None:
            outcome.diagnosis.postfilter_message = postfilter_message(found)
            if not found.keeps_nomination and self.state.nominated.drop(queued.pod.uid):
                attempt.nominated = ""
        return attempt

    def _attempt_gang(self, evaluator: Evaluator, queued: QueuedPod) -> list[Attempt]:
        try:
            spec = gang_spec(queued.pod)
        except GangError as error:
            self.queue.put_unschedulable(queued, Event.POD_SPEC)
            return [Attempt(queued, evaluator.profile.scheduler_name, Diagnosis(0, instead=str(error)), 0.0)]
        return GangCycle(self, evaluator, spec, self._clock()).run(queued)

    def put_back(self, evaluator: Evaluator, queued: QueuedPod, rejection: Rejection) -> None:
        """The Pod fits nowhere: wait for what may change that."""
        diagnosis = rejection.diagnosis
        if not diagnosis.node_count:
            # Nothing but a node can help; without nodes no plugin was asked.
            self.queue.put_unschedulable(queued, Event.NODE_ADD)
        else:
            wakers = evaluator.profile.wakers(diagnosis.plugins)
            self.queue.put_unschedulable(queued, wakers, diagnosis.plugins)

    def preempt(self, attempt: Attempt, found: Preempting) -> None:
        """Nominate the Pod, which is back in the queue, and have others evicted for it."""
        candidate = found.candidate
        attempt.preemption = candidate
        attempt.nominated = candidate.node
        attempt.outranked = self.placing.nominate(attempt.pod, candidate.node)
        leaving = {v.uid for v in candidate.victims if v.pod.metadata.deletion_timestamp is None}
        if leaving:
            self.preempting[attempt.pod.uid] = leaving
            self.queue.hold(attempt.pod.uid)
        for other in attempt.outranked:
            self.queue.activate(other.uid)

    # --- what became of it ---------------------------------------------------------------------------------------

    def evicted(self, uid: str, *, complete: bool) -> None:
        """The evictions for a Pod were sent, or given up where not `complete`: it may be tried again."""
        leaving = self.preempting.pop(uid, set())
        still_there = any(victim in self.state.pods for victim in leaving)
        self.queue.release(uid, wait=complete and still_there)
        self._on_work()

    def bind_failed(self, queued: QueuedPod, *, retry: bool) -> None:
        """The binding was refused or its fate is unknown. Whatever the watch has shown since then takes precedence."""
        uid = queued.pod.uid
        assumption = self.assumed.get(uid)
        if assumption is None or assumption.queued is not queued:
            return
        self.placing.take_back(self.profile(assumption.profile), uid)
        if retry:
            if gang_key(queued.pod) is not None:
                # Others of its gang have their nodes by now: nobody else may have its room meanwhile.
                self.state.nominated.put(queued.pod, assumption.node)
            self.queue.put_error(queued)
        else:
            self.gangs.gone(uid)
        self.happened(Event.POD_DELETE, queued.pod)
        self._on_work()


def _same_for_plugins(old: PodInfo, new: PodInfo) -> bool:
    """Whether two versions of a waiting Pod are equal in all that a plugin may see, status aside."""
    return (
        old.template is new.template
        and old.priority == new.priority
        and old.pod.metadata.labels == new.pod.metadata.labels
        and old.pod.metadata.annotations == new.pod.metadata.annotations
    )
