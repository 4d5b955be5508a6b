"""The eviction manager: looks at the node, reclaims what nobody misses, and evicts Pods where that is not enough."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from nodewright.kube.objects import ObjectReference, Pod, Taint
from nodewright.kube.selectors import tolerates
from nodewright_agent.eviction import core, limits, messages, ranking
from nodewright_agent.eviction.notify import MemoryEvents
from nodewright_agent.eviction.signals import MEMORY_PRESSURE, RESOURCE, Settings, Threshold
from nodewright_agent.pods import killing, phase, refs, resources
from nodewright_agent.pods.ending import torn_down
from nodewright_agent.pods.model import PodState, Termination
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.runtime.cgroup_math import QosClass
from nodewright_agent.server.nodemetrics import NodeCounters
from nodewright_agent.usage.disk import FRESH
from nodewright_agent.usage.model import NodeUsage

log = logging.getLogger(__name__)

PERIOD = 10.0
"""Seconds between looks at disks and processes, which nothing tells us of (upstream's monitoring interval)."""
CLEANUP = 30.0
"""Seconds to wait until what an evicted Pod used is free, before another one is looked for."""
_MEMORY_TAINT = "node.kubernetes.io/memory-pressure"
GRACE = 1.0
"""Grace period of a Pod that a hard threshold or a limit evicts."""


class Worker(Protocol):
    """What is needed of a Pod's worker."""

    pod: Pod
    state: PodState

    def end(self, termination: Termination) -> None:
        """End the Pod."""


class Figures(Protocol):
    """Reads usage (``UsageReader``)."""

    async def node(self) -> NodeUsage:
        """Read what the signals need."""

    async def pods(self, with_disk: Callable[[Pod], bool], fresh: float = ...) -> NodeUsage:
        """Read usage of Pods, with disks for those that are accepted."""


@dataclass(frozen=True, slots=True)
class Reclaimers:
    """What can be freed before a Pod has to go; each says nothing, and may fail with OSError."""

    containers: Callable[[], Awaitable[None]]
    """Remove ended containers."""
    images: Callable[[], Awaitable[None]]
    """Remove unused images."""
    split: Callable[[], bool]
    """Whether images have a file system of their own."""


class EvictionManager:
    """One node's."""

    def __init__(
        self,
        figures: Figures,
        workers: Callable[[], Mapping[str, Worker]],
        reclaimers: Reclaimers,
        events: Events,
        node: ObjectReference,
        counters: NodeCounters,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        """Do nothing yet; ``changed`` is called when the node's conditions are others."""
        self.conditions: tuple[str, ...] = ()
        self.settings = Settings()
        self._figures, self._workers, self._reclaimers = figures, workers, reclaimers
        self._events, self._node, self._counters = events, node, counters
        self._clock, self._changed = clock, changed
        self._memory = core.Memory()
        self._wake = asyncio.Event()

    def apply(self, settings: Settings) -> None:
        """Obey other settings, from the next look on, which is now."""
        if settings != self.settings:
            self.settings = settings
            self._wake.set()

    def pressures(self) -> dict[str, bool]:
        """The node's conditions."""
        return {name: name in self.conditions for name in ("MemoryPressure", "DiskPressure", "PIDPressure")}

    def admit(self, pod: Pod) -> tuple[str, str] | None:
        """Refuse a Pod that would make it worse: reason and message; None when it may come.

        Critical Pods always may. Under memory pressure alone so may those that have requests, or tolerate it.
        """
        if not self.conditions or ranking.critical(pod):
            return None
        if self.conditions == (MEMORY_PRESSURE,):
            if resources.qos_class(pod) is not QosClass.BEST_EFFORT:
                return None
            if tolerates(pod.spec.tolerations, Taint(key=_MEMORY_TAINT, effect="NoSchedule")):
                return None
        return messages.EVICTED, messages.node_condition(self.conditions)

    async def run(self) -> None:
        """Look, and act, until cancelled: every ten seconds, and when the kernel tells of a lack of memory."""
        with MemoryEvents(self._wake.set) as told:
            if not told:
                log.info("the kernel does not tell of memory pressure here: it is looked at every %.0f s", PERIOD)
            while True:
                self._wake.clear()
                try:
                    evicted, pause = await self.look()
                except Exception:
                    log.exception("cannot look for pressure on the node")
                    evicted, pause = [], PERIOD
                if evicted:
                    await self._cleaned_up(evicted)
                    continue
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass  # time to look again

    async def look(self) -> tuple[list[Worker], float]:
        """Look once, and do what is due: the Pods that were evicted, and the seconds until the next look."""
        now = self._clock()
        usage = await self._figures.node()
        seen = core.observe(usage)
        verdict = core.look(self._memory, self.settings, seen, now)
        if verdict.conditions != self.conditions:
            self.conditions = verdict.conditions
            self._changed()
        pause = PERIOD if verdict.next_look is None else min(PERIOD, max(0.0, verdict.next_look - now))
        if evicted := await self._over_limits():
            return evicted, pause
        if not verdict.acting:
            return [], pause
        first = verdict.acting[0]
        resource = RESOURCE[first.signal]
        self._events.event(self._node, "Warning", "EvictionThresholdMet", f"Attempting to reclaim {resource}")
        if await self._reclaim(first):
            return [], pause
        return await self._evict(first, verdict, seen, usage.time), pause

    async def _over_limits(self) -> list[Worker]:
        limited = {uid: one for uid, one in self._active().items() if limits.has_limits(one.pod)}
        if not limited:
            return []
        usage = await self._figures.pods(lambda pod: pod.metadata.uid in limited, FRESH)
        evicted = []
        for pod in usage.pods:
            worker = limited.get(pod.uid)
            found = limits.excess(worker.pod, pod) if worker is not None else None
            if worker is not None and found is not None and self._end(worker, found.message, GRACE, ""):
                self._counters.evicted(found.signal)
                evicted.append(worker)
        return evicted

    async def _reclaim(self, threshold: Threshold) -> bool:
        """Free what nobody misses; whether that was enough for all thresholds."""
        resource, split = RESOURCE[threshold.signal], self._reclaimers.split()
        if resource not in ("ephemeral-storage", "inodes"):
            return False
        on_images = threshold.signal.startswith("imagefs")
        works = [self._reclaimers.containers] if not (split and on_images) else []
        works += [self._reclaimers.images] if not split or on_images else []
        for work in works:
            try:
                await work()
            except Exception:  # what cannot be reclaimed must not save Pods from eviction
                log.exception("cannot reclaim %s", resource)
        seen = core.observe(await self._figures.node())
        return not core.exceeded(self.settings.thresholds, seen, with_reclaim=True)

    async def _evict(
        self, threshold: Threshold, verdict: core.Verdict, seen: core.Observations, seen_at: float
    ) -> list[Worker]:
        """Evict the Pod that has to go first; at most one, since it may be enough."""
        workers = self._active()
        disk = RESOURCE[threshold.signal] in ("ephemeral-storage", "inodes")
        usage = await self._figures.pods(lambda pod: disk, FRESH)
        figures = {pod.uid: pod for pod in usage.pods}
        resource = RESOURCE[threshold.signal]
        ranked = ranking.rank(
            threshold.signal, (one.pod for one in workers.values()), figures, split=self._reclaimers.split()
        )
        log.warning("node is short of %s; Pods in the order in which they go: %s", resource, [p.key for p in ranked])
        for one in verdict.acting:
            self._counters.stats_used(one.signal, max(0.0, self._clock() - seen_at))
        grace = GRACE if threshold.hard else self.settings.max_pod_grace
        shortage = core.shortage(resource, verdict.acting, seen)
        for pod in ranked:
            text = messages.node_low(resource, pod, figures.get(pod.metadata.uid), shortage)
            if self._end(workers[pod.metadata.uid], text, grace, text):
                self._counters.evicted(threshold.signal)
                return [workers[pod.metadata.uid]]
        return []

    def _active(self) -> dict[str, Worker]:
        """Pods that run, or are about to; those that end already free what they have without us."""
        return {
            uid: worker
            for uid, worker in self._workers().items()
            if worker.state.termination is None and not worker.state.finished
        }

    def _end(self, worker: Worker, message: str, grace: float, disruption: str) -> bool:
        if ranking.critical(worker.pod):
            log.warning("a critical pod is not evicted", extra={"pod": worker.pod.key})
            return False
        if worker.state.termination is not None:
            return False  # it ended while we counted
        self._events.event(refs.reference(worker.pod), "Warning", messages.EVICTED, message)
        now = self._clock()
        deadline = now + killing.window(grace)
        worker.end(Termination(now, deadline, messages.EVICTED, message, phase.FAILED, disruption=disruption))
        return True

    async def _cleaned_up(self, evicted: Iterable[Worker]) -> None:
        """Wait until what the Pods used is free; not for ever."""
        left = list(evicted)
        if not await torn_down(left, CLEANUP):
            log.warning("evicted pods take long to end", extra={"pods": [one.pod.key for one in left]})
