"""Which Pod is next: active, in backoff, unschedulable until something happens, or gated.

Pure: it is told the time and never waits. The rules are kube-scheduler's: priority first, then age; a Pod that could
not be placed waits until an event that one of the plugins which rejected it has named, and then for what is left of
its backoff (1, 2, 4, 8, 10 s); a Pod that has waited five minutes for such an event is tried anyway. A cycle is one
uninterrupted step here, so no event can slip in between a Pod's failure and its return to the queue, and upstream's
record of events during a cycle has no counterpart.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from .events import Event, label
from .pods import PodInfo

INITIAL_BACKOFF = 1.0
MAX_BACKOFF = 10.0
MAX_IN_UNSCHEDULABLE = 300.0
FLUSH_INTERVAL = 30.0

_GATED = frozenset({"SchedulingGates"})
_HELD = frozenset({"DefaultPreemption"})

Place = Literal["active", "backoff", "unschedulable", "gated"]


class QueuedPod(msgspec.Struct, eq=False):
    """A Pod that waits, and its history. Times are those of the queue's clock, in seconds."""

    pod: PodInfo
    # When it last entered the active queue or backoff; orders Pods of equal priority.
    timestamp: float
    # When it could first be tried, or None while gates have held it from the start.
    first_attempt: float | None = None
    attempts: int = 0
    unschedulable_count: int = 0
    error_count: int = 0
    # The events that make another try worthwhile, and the plugins that said so.
    wakers: Event = Event.NONE
    plugins: frozenset[str] = frozenset()
    # Tried again last because it had waited too long for an event.
    flushed: bool = False
    # Kept back until something that this process does is done, as if gated.
    held: bool = False
    place: Place | None = None
    # Told apart from older entries for the same Pod that are still in a heap.
    token: int = 0
    since: float = 0.0


# (sort keys..., token, pod): the token makes entries unique, so that Pods are never compared.
Entry = tuple[float, float, float, int, QueuedPod]


class SchedulingQueue:
    """Pods that want a node. A Pod handed out by `pop` is in no queue until it is put back."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        initial_backoff: float = INITIAL_BACKOFF,
        max_backoff: float = MAX_BACKOFF,
        on_incoming: Callable[[Place, str], None] | None = None,
    ) -> None:
        self._clock = clock
        self._initial = initial_backoff
        self._max = max_backoff
        self._on_incoming = on_incoming or (lambda place, event: None)
        self._pods: dict[str, QueuedPod] = {}
        self._active: list[Entry] = []
        self._backoff: list[Entry] = []
        self._error_backoff: list[Entry] = []
        self._unschedulable: dict[Event, dict[str, QueuedPod]] = {}
        self._tokens = 0
        self._counts: dict[Place, int] = {"active": 0, "backoff": 0, "unschedulable": 0, "gated": 0}

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: str) -> bool:
        return uid in self._pods

    def counts(self) -> dict[Place, int]:
        """How many Pods wait in each place."""
        return dict(self._counts)

    def rejected(self) -> Counter[tuple[str, str]]:
        """How many waiting Pods each (plugin, schedulerName) has rejected; a Pod counts for all that rejected it."""
        kinds: Counter[tuple[frozenset[str], str]] = Counter()
        for queued in self._pods.values():
            if queued.place == "gated":
                kinds[_HELD if queued.held else _GATED, queued.pod.spec.scheduler_name] += 1
            elif queued.plugins:
                kinds[queued.plugins, queued.pod.spec.scheduler_name] += 1
        found: Counter[tuple[str, str]] = Counter()
        for (plugins, name), count in kinds.items():
            found.update({(plugin, name): count for plugin in plugins})
        return found

    def get(self, uid: str) -> QueuedPod | None:
        """A waiting Pod, or None."""
        return self._pods.get(uid)

    def where(self, uid: str) -> Place | None:
        """The place a Pod waits in, or None."""
        queued = self._pods.get(uid)
        return queued.place if queued else None

    # --- changes of Pods -----------------------------------------------------------------------------------------

    def add(self, pod: PodInfo) -> None:
        """A Pod that has no node appeared, or its spec changed: it is tried (again), unless a gate holds it."""
        queued = self._pods.get(pod.uid)
        event = "UnschedulablePodUpdate"
        if queued is None:
            queued, event = QueuedPod(pod, self._clock()), "UnschedulablePodAdd"
        queued.pod = pod
        if queued.held or pod.spec.scheduling_gates:
            self._move(queued, "gated", event)
        else:
            self._requeue(queued, event)

    def update(self, pod: PodInfo) -> None:
        """Replace what is known of a waiting Pod; where it waits stays, unless a gate was added or removed."""
        queued = self._pods.get(pod.uid)
        if queued is None:
            return
        queued.pod = pod
        gated = queued.held or bool(pod.spec.scheduling_gates)
        if gated != (queued.place == "gated"):
            event = "UnschedulablePodUpdate" + ("" if gated else "PodSchedulingGatesEliminated")
            self._move(queued, "gated" if gated else "active", event)

    def delete(self, uid: str) -> None:
        """The Pod is gone, or has a node now."""
        queued = self._pods.pop(uid, None)
        if queued is not None:
            self._leave(queued)

    # --- the cycle -----------------------------------------------------------------------------------------------

    def pop(self) -> QueuedPod | None:
        """Take the next Pod; when no Pod is active, one whose backoff is not over yet, so that time is not wasted.

        None when there is neither. Pods that backed off after an error do not jump the queue.
        """
        self.flush()
        queued = self._take(self._active, "active")
        if queued is None:
            queued = self._take(self._backoff, "backoff")
            if queued is None:
                return None
            self._on_incoming("active", "PopFromBackoffQ")
        self._hand_out(queued)
        return queued

    def take(self, uid: str) -> QueuedPod | None:
        """Take a certain Pod, wherever it waits, to be tried together with another; not one that a gate holds."""
        queued = self._pods.get(uid)
        if queued is None or queued.place == "gated":
            return None
        self._hand_out(queued)
        return queued

    def _hand_out(self, queued: QueuedPod) -> None:
        self._pods.pop(queued.pod.uid)
        self._leave(queued)
        queued.attempts += 1

    def put_unschedulable(self, queued: QueuedPod, wakers: Event, plugins: Iterable[str] = ()) -> None:
        """No node fits: wait for one of the events. Without any to wait for, wait for the backoff alone."""
        queued.unschedulable_count += 1
        queued.error_count = 0
        queued.timestamp = self._clock()
        queued.wakers = wakers
        queued.plugins = frozenset(plugins)
        queued.flushed = False
        self._move(queued, "unschedulable" if wakers else "backoff", "ScheduleAttemptFailure")

    def hold(self, uid: str) -> None:
        """Keep a waiting Pod back until `release`, whatever happens meanwhile."""
        queued = self._pods.get(uid)
        if queued is not None and not queued.held:
            queued.held = True
            self._move(queued, "gated")

    def release(self, uid: str, *, wait: bool) -> None:
        """Keep the Pod back no longer: with `wait` it waits for the events that it waited for, else it is tried."""
        queued = self._pods.get(uid)
        if queued is None or not queued.held:
            return
        queued.held = False
        if queued.pod.spec.scheduling_gates:
            return
        if wait and queued.wakers:
            self._move(queued, "unschedulable")
        else:
            self._requeue(queued, "ForceActivate")

    def prefer(self, uid: str) -> None:
        """Let an active Pod go before all others of its priority."""
        queued = self._pods.get(uid)
        if queued is not None and queued.place == "active":
            queued.timestamp = -math.inf
            self._move(queued, "active")

    def activate(self, uid: str) -> None:
        """Try a waiting Pod again as soon as its backoff allows."""
        queued = self._pods.get(uid)
        if queued is not None and queued.place == "unschedulable":
            self._requeue(queued, "ForceActivate")

    def put_error(self, queued: QueuedPod) -> None:
        """Something went wrong that is not the cluster's state: try again after backoff."""
        queued.error_count += 1
        queued.timestamp = self._clock()
        self._move(queued, "backoff", "ScheduleAttemptFailure")

    def on_event(self, kinds: Event, helps: Callable[[QueuedPod], bool] | None = None) -> bool:
        """Something happened: the Pods that wait for it may be tried again. True when there were any.

        `helps` looks closer: whether it makes a difference to that Pod.
        """
        woken = [q for wakers, pods in self._unschedulable.items() if wakers & kinds for q in pods.values()]
        if helps is not None:
            woken = [queued for queued in woken if helps(queued)]
        self._requeue_all(woken, label(kinds))
        return bool(woken)

    def flush(self) -> None:
        """Make Pods active whose backoff is over, and those that have waited for events too long."""
        now = self._clock()
        for heap in (self._backoff, self._error_backoff):
            while heap and (heap[0][0] <= now or not self._is_current(heap[0], "backoff")):
                queued, current = heap[0][-1], self._is_current(heap[0], "backoff")
                heapq.heappop(heap)
                if current:
                    self._move(queued, "active", "BackoffComplete")
        if self._counts["unschedulable"]:
            late = [
                q for pods in self._unschedulable.values() for q in self._oldest_first(pods, now - MAX_IN_UNSCHEDULABLE)
            ]
            for queued in late:
                queued.flushed = True
            self._requeue_all(late, "UnschedulableTimeout")

    def next_wake(self) -> float | None:
        """When `pop` may have a Pod although nothing happens until then, by the queue's clock; None for never."""
        times = [heap[0][0] for heap in (self._backoff, self._error_backoff) if heap]
        # Each dictionary is in order of arrival, so its first entry is the oldest.
        oldest = [next(iter(pods.values())).since for pods in self._unschedulable.values() if pods]
        if oldest:
            late = min(oldest) + MAX_IN_UNSCHEDULABLE
            times.append(math.ceil(late / FLUSH_INTERVAL) * FLUSH_INTERVAL)
        return min(times, default=None)

    # --- inside --------------------------------------------------------------------------------------------------

    def backoff_ends(self, queued: QueuedPod) -> float:
        """When a Pod's backoff is over: doubling with each failure in a row, errors counted apart."""
        count = queued.error_count or queued.unschedulable_count
        if not count:
            return queued.timestamp
        duration: float = min(self._initial * 2 ** min(count - 1, 30), self._max)
        return math.floor(queued.timestamp + duration)

    def _requeue(self, queued: QueuedPod, event: str) -> None:
        self._move(queued, "backoff" if self.backoff_ends(queued) > self._clock() else "active", event)

    def _requeue_all(self, pods: Iterable[QueuedPod], event: str) -> None:
        for queued in pods:
            self._requeue(queued, event)

    def _move(self, queued: QueuedPod, place: Place, event: str = "") -> None:
        """Put a Pod in a place. What only this scheduler does is no event, and not counted."""
        self._leave(queued)
        self._tokens += 1
        now = self._clock()
        queued.place, queued.token, queued.since = place, self._tokens, now
        self._pods[queued.pod.uid] = queued
        self._counts[place] += 1
        if event:
            self._on_incoming(place, event)
        priority = -float(queued.pod.priority)
        if place == "active":
            if queued.first_attempt is None:
                queued.first_attempt = now
            heapq.heappush(self._active, (priority, queued.timestamp, 0.0, queued.token, queued))
        elif place == "backoff":
            heap = self._error_backoff if queued.error_count else self._backoff
            heapq.heappush(heap, (self.backoff_ends(queued), priority, queued.timestamp, queued.token, queued))
        elif place == "unschedulable":
            self._unschedulable.setdefault(queued.wakers, {})[queued.pod.uid] = queued

    def _leave(self, queued: QueuedPod) -> None:
        """Take a Pod out of its place. Its entry in a heap stays behind, and is no longer current."""
        if queued.place is None:
            return
        self._counts[queued.place] -= 1
        if queued.place == "unschedulable":
            waiting = self._unschedulable[queued.wakers]
            del waiting[queued.pod.uid]
            if not waiting:
                del self._unschedulable[queued.wakers]
        queued.place = None
        queued.token = 0

    def _take(self, heap: list[Entry], place: Place) -> QueuedPod | None:
        while heap:
            entry = heapq.heappop(heap)
            if self._is_current(entry, place):
                return entry[-1]
        return None

    def _is_current(self, entry: Entry, place: Place) -> bool:
        queued = entry[-1]
        return queued.token == entry[-2] and queued.place == place

    @staticmethod
    def _oldest_first(pods: dict[str, QueuedPod], until: float) -> list[QueuedPod]:
        late = []
        for queued in pods.values():
            if queued.since > until:
                break
            late.append(queued)
        return late
