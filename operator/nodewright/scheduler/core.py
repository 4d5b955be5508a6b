"""The scheduler without I/O: what it is told by watches, what it decides, and what became of its decisions.

`SchedulerCore` is driven by a thin shell (`service`): watch handlers call `on_pod` and `on_node`, the loop calls
`attempt`, and the outcome of a binding comes back through `bound` or `bind_failed`. Everything it knows is derived from
the API, so that a restart at any moment loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec

from . import events
from .diagnosis import Diagnosis
from .evaluation import Evaluator, Placement
from .events import Event
from .objects import Node, Pod
from .plugin import PluginError
from .pods import PodFactory, PodInfo
from .profile import Profile
from .queue import QueuedPod, SchedulingQueue
from .state import ClusterState

log = logging.getLogger(__name__)


class Skipped(msgspec.Struct):
    """The Pod was dropped from the queue, for the reason given."""

    reason: str


class Attempt(msgspec.Struct):
    """One scheduling cycle and how it ended. `seconds` is the time that the decision took."""

    queued: QueuedPod
    profile: str
    outcome: Placement | Diagnosis | PluginError | Skipped
    seconds: float

    @property
    def pod(self) -> PodInfo:
        """The Pod that was looked at."""
        return self.queued.pod


class Assumption(msgspec.Struct):
    """A Pod that counts at a node since we decided so; the API has not shown it there yet."""

    queued: QueuedPod
    node: str


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
        self.queue = queue or SchedulingQueue(clock)
        self.factory = PodFactory()
        self.assumed: dict[str, Assumption] = {}
        self._clock = clock
        self._on_work = on_work or (lambda: None)
        self._evaluators: dict[str, Evaluator] = {}
        self.set_profiles(profiles, ())

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
        self._happened(events.node_events(old, new))

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
            self._is_pending(info)

    def _is_bound(self, info: PodInfo) -> None:
        counted = self.state.pods.get(info.uid)
        is_news = self.assumed.pop(info.uid, None) is not None or counted is None
        self.queue.delete(info.uid)
        self.state.add_pod(info, info.node_name)
        if is_news:
            self._happened(Event.POD_ADD)
        elif counted is not None and (kinds := events.bound_pod_events(counted[1], info)):
            self._happened(kinds)

    def _is_pending(self, info: PodInfo) -> None:
        assumption = self.assumed.get(info.uid)
        if assumption is not None:
            assumption.queued.pod = info  # in case the binding fails and the Pod has to be tried again
            return
        known = self.queue.get(info.uid)
        if known is None or not _same_for_plugins(known.pod, info):
            self.queue.add(info)
            self._on_work()
        else:
            self.queue.update(info)

    def _gone(self, uid: str) -> None:
        self.queue.delete(uid)
        self.assumed.pop(uid, None)
        if self.state.remove_pod(uid) is not None:
            self._happened(Event.POD_DELETE)

    def _happened(self, kinds: Event) -> None:
        if kinds and self.queue.on_event(kinds):
            self._on_work()

    # --- what we decide ------------------------------------------------------------------------------------------

    def attempt(self) -> Attempt | None:
        """Run one cycle for the next Pod. A placed Pod is assumed, any other is back in the queue. None: no Pod."""
        queued = self.queue.pop()
        if queued is None:
            return None
        started = self._clock()
        pod = queued.pod
        name = pod.spec.scheduler_name
        outcome: Placement | Diagnosis | PluginError | Skipped
        if pod.pod.metadata.deletion_timestamp is not None:
            outcome = Skipped(f"skip schedule deleting pod: {pod.key}")
        elif (evaluator := self._evaluators.get(name)) is None:
            outcome = Skipped(f"no profile serves schedulerName {name!r}")
        else:
            outcome = self._decide(evaluator, queued)
        return Attempt(queued, name, outcome, self._clock() - started)

    def _decide(self, evaluator: Evaluator, queued: QueuedPod) -> Placement | Diagnosis | PluginError:
        try:
            outcome = evaluator.place(queued.pod)
        except PluginError as error:
            self.queue.put_error(queued)
            return error
        if isinstance(outcome, Placement):
            self.state.add_pod(queued.pod, outcome.node)
            self.assumed[queued.pod.uid] = Assumption(queued, outcome.node)
        elif not outcome.node_count:
            # Nothing but a node can help; without nodes no plugin was asked.
            self.queue.put_unschedulable(queued, Event.NODE_ADD)
        else:
            self.queue.put_unschedulable(queued, evaluator.profile.wakers(outcome.plugins))
        return outcome

    def bind_failed(self, queued: QueuedPod, *, retry: bool) -> None:
        """The binding was refused or its fate is unknown. Whatever the watch has shown since then takes precedence."""
        uid = queued.pod.uid
        assumption = self.assumed.get(uid)
        if assumption is None or assumption.queued is not queued:
            return
        del self.assumed[uid]
        self.state.remove_pod(uid)
        if retry:
            self.queue.put_error(queued)
        self._happened(Event.POD_DELETE)
        self._on_work()


def _same_for_plugins(old: PodInfo, new: PodInfo) -> bool:
    """Whether two versions of a waiting Pod are equal in all that a plugin may see, status aside."""
    return (
        old.template is new.template
        and old.priority == new.priority
        and old.pod.metadata.labels == new.pod.metadata.labels
        and old.pod.metadata.annotations == new.pod.metadata.annotations
    )
