"""Graceful node shutdown: Pods end in groups by priority before the host goes down, within the time that it gives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from nodewright.kube.objects import ObjectReference, Pod
from nodewright_agent.config import AgentConfig, PriorityGrace
from nodewright_agent.pods import killing, phase
from nodewright_agent.pods.ending import torn_down
from nodewright_agent.pods.model import PodState, Termination
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.pods.resources import SYSTEM_CRITICAL
from nodewright_agent.server.nodemetrics import NodeCounters

log = logging.getLogger(__name__)

REASON, MESSAGE = "Terminated", "Pod was terminated in response to imminent node shutdown."
REFUSAL = ("NodeShutdown", "Pod was rejected as the node is shutting down.")
NOT_READY = "node is shutting down"
_AGAIN = 5.0
"""Seconds until a lost connection to the source is tried again."""


class Group(NamedTuple):
    """Pods that end together, and the seconds that they have."""

    grace: int
    pods: list[Pod]


class Worker(Protocol):
    """What is needed of a Pod's worker."""

    pod: Pod
    state: PodState

    def end(self, termination: Termination) -> None:
        """End the Pod."""


class ShutdownSource(Protocol):
    """Who tells that the host is about to go down (logind), and waits for us."""

    def watch(self, delay: float) -> AbstractAsyncContextManager[AsyncIterator[bool]]:
        """Ask for ``delay`` seconds before a shutdown; give each announcement, and False where it is called off.

        Raises OSError, also when the source is gone.
        """
        ...

    def release(self) -> None:
        """Let the host go down."""


def periods(config: AgentConfig) -> list[PriorityGrace]:
    """Return the times by priority, the lowest first: as given, or ordinary Pods first and critical ones after."""
    if config.shutdown_grace_period_by_pod_priority:
        return sorted(config.shutdown_grace_period_by_pod_priority, key=lambda one: one.priority)
    if not config.shutdown_grace_period:
        return []
    critical = int(config.shutdown_grace_period_critical_pods)
    return [
        PriorityGrace(priority=0, shutdown_grace_period_seconds=int(config.shutdown_grace_period) - critical),
        PriorityGrace(priority=SYSTEM_CRITICAL, shutdown_grace_period_seconds=critical),
    ]


def groups(given: Sequence[PriorityGrace], pods: Iterable[Pod]) -> list[Group]:
    """Sort Pods into the ranges: each belongs to the highest one that is not above its priority, else to the lowest."""
    made = [Group(one.shutdown_grace_period_seconds, []) for one in given]
    for pod in pods:
        fitting = [i for i, one in enumerate(given) if one.priority <= (pod.spec.priority or 0)]
        made[fitting[-1] if fitting else 0].pods.append(pod)
    return [group for group in made if group.pods]


class ShutdownManager:
    """One node's."""

    def __init__(
        self,
        source: ShutdownSource,
        given: Sequence[PriorityGrace],
        workers: Callable[[], Mapping[str, Worker]],
        report: Callable[[str | None], None],
        events: Events,
        node: ObjectReference,
        counters: NodeCounters,
        clock: Clock,
    ) -> None:
        """``report`` says why the node is not Ready (None: it may be)."""
        self.going_down = False
        self._source, self._given, self._workers, self._report = source, given, workers, report
        self._events, self._node, self._counters, self._clock = events, node, counters, clock

    def admit(self, pod: Pod) -> tuple[str, str] | None:
        """Refuse every Pod while the node goes down."""
        return REFUSAL if self.going_down else None

    async def run(self) -> None:
        """Wait for shutdowns until cancelled; returns where none is to be graceful. A lost source is found again."""
        if not self._given:
            return
        delay = float(sum(one.shutdown_grace_period_seconds for one in self._given))
        told = False
        while True:
            try:
                async with self._source.watch(delay) as announced:
                    told = False
                    async for down in announced:
                        await self._announced(down)
            except OSError as error:
                if not told:
                    text = f"graceful node shutdown is not possible: {error}"
                    log.warning("%s; trying again", text)
                    self._events.event(self._node, "Warning", "NodeShutdownUnavailable", text)
                told = True
            await asyncio.sleep(_AGAIN)

    async def _announced(self, down: bool) -> None:
        what = "event" if down else "cancellation"
        self._events.event(self._node, "Normal", "NodeShutdown", f"Shutdown manager detected shutdown {what}")
        self.going_down = down
        self._report(NOT_READY if down else None)
        if not down:
            return
        self._counters.shutdown_started, self._counters.shutdown_ended = self._clock(), 0.0
        try:
            await self._end_pods()
        finally:
            self._counters.shutdown_ended = self._clock()
            self._source.release()

    async def _end_pods(self) -> None:
        active = {uid: one for uid, one in self._workers().items() if not one.state.finished}
        for group in groups(self._given, [one.pod for one in active.values()]):
            now = self._clock()
            ending = [active[pod.metadata.uid] for pod in group.pods]
            for worker in ending:
                grace = min(float(group.grace), killing.default_grace(worker.pod))
                worker.end(
                    Termination(now, now + killing.window(grace), REASON, MESSAGE, phase.FAILED, disruption=MESSAGE)
                )
            await torn_down(ending, group.grace)
