"""The shell around the core: watches in, bindings, conditions and events out."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.resources import NODES, PODS

from . import metrics
from .announcer import Announcer
from .attempts import Attempt
from .binder import Binder, Binding, BindResult
from .conditions import SCHEDULER_ERROR, UNSCHEDULABLE, ConditionWriter, Refusal
from .core import SchedulerCore
from .diagnosis import Diagnosis, truncate_note
from .evaluator import Placement
from .objects import Node, Pod
from .plugin import PluginError
from .pods import PodInfo
from .pre_binding import PreBinding
from .preemption.choice import Candidate
from .preemption.evictor import Evictor
from .profile import Profile
from .queue import Place, SchedulingQueue
from .surroundings import Surroundings

log = logging.getLogger(__name__)

FLUSH_TIMEOUT = 5.0
EVENTS_IN_FLIGHT = 8
NOT_FINISHED = "status.phase!=Succeeded,status.phase!=Failed"


class Warn(Protocol):
    """Posts a Warning event about a Pod: reason FailedScheduling, reported by the profile of that name."""

    def __call__(self, pod: PodInfo, profile: str, note: str) -> None:
        """Post soon; returns at once."""


class Scheduler:
    """Serves the given profiles, by schedulerName. `identity` names this process in events."""

    def __init__(
        self,
        client: Client,
        profiles: Mapping[str, Profile],
        *,
        identity: str,
        warn: Warn,
        evicted: Callable[[PodInfo, PodInfo, str], None],
        in_flight: int = 32,
    ) -> None:
        """`evicted(victim, preemptor, node)` posts an event about a victim."""
        self._work = asyncio.Event()
        self._warn = warn
        self.core = SchedulerCore(
            profiles,
            time.monotonic,
            SchedulingQueue(time.monotonic, on_incoming=_count_incoming),
            on_work=self._work.set,
        )
        self.pods = WatchCache(client, PODS, type=Pod, field_selector=NOT_FINISHED, name="scheduler-pods")
        self.nodes = WatchCache(client, NODES, type=Node, name="scheduler-nodes")
        self.pods.add_handler(self._on_pod)
        self.nodes.add_handler(self._on_node)
        self._surroundings = Surroundings(client, self.core)
        self._quick = client.quick_poster(in_flight + EVENTS_IN_FLIGHT)
        self.binder = Binder(client, self._settled, in_flight=in_flight, quick=self._quick)
        self._pre_binding = PreBinding(client, self.core.state, self.binder.submit, self._not_bound)
        self._evictor = Evictor(client, evicted)
        self._evictions: set[asyncio.Task[None]] = set()
        self.announcer = Announcer(
            client,
            identity,
            is_busy=lambda: not self.binder.is_idle,
            wait_idle=self.binder.wait_idle,
            workers=EVENTS_IN_FLIGHT,
            quick=self._quick,
        )
        self.conditions = ConditionWriter(client)
        self._observe_sizes()

    @property
    def has_synced(self) -> bool:
        """Whether all that exists is known."""
        return self.nodes.has_synced and self.pods.has_synced and self._surroundings.has_synced

    async def follow(self) -> None:
        """Keep the picture of the cluster up to date until cancelled; a standby does this too."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.nodes.run())
            group.create_task(self.pods.run())
            group.create_task(self._surroundings.run())

    async def schedule(self) -> None:
        """Place Pods until cancelled. Only the leader may do this; `follow` must be running."""
        # Bound Pods must all be counted before anything is placed.
        await self.nodes.wait_synced()
        await self.pods.wait_synced()
        await self._surroundings.wait_synced()
        self.core.resume()
        # What is known now mostly stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        log.info("scheduling", extra={"nodes": len(self.nodes), "pods": len(self.pods)})
        try:
            async with asyncio.TaskGroup() as group:
                announcing = group.create_task(self.announcer.run())
                group.create_task(self.binder.run())
                group.create_task(self.conditions.run())
                try:
                    await self._loop()
                finally:
                    if not announcing.done():
                        await self._finish()
        finally:
            await self._quick.close()

    def serve(self, profiles: Mapping[str, Profile]) -> None:
        """Serve these profiles from now on."""
        self.core.set_profiles(profiles, list(self.pods.values()))
        self._work.set()

    async def _finish(self) -> None:
        """Let bindings and evictions under way end, and tell what was not told yet."""
        await self._pre_binding.close()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                if self.binder.may_bind():
                    await self.binder.wait_idle()
                else:  # somebody else decides by now
                    for task in self._evictions:
                        task.cancel()
                await asyncio.gather(*self._evictions, return_exceptions=True)
                await self.announcer.flush()
        except TimeoutError:
            log.warning("stopped with events unposted", extra={"events": len(self.announcer)})

    # --- the loop ------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            if self.binder.is_full:
                await self.binder.wait_room()
            attempt = self.core.attempt()
            if attempt is None:
                await self._wait_for_work()
                continue
            self._act_on(attempt)
            # Send it before the next one is decided: a binding that waits for a batch to be decided is late.
            await asyncio.sleep(0)

    async def _wait_for_work(self) -> None:
        self._work.clear()
        wake = self.core.queue.next_wake()
        if wake is None:
            await self._work.wait()
            return
        try:
            async with asyncio.timeout(max(wake - time.monotonic(), 0.0)):
                await self._work.wait()
        except TimeoutError:
            pass  # some Pod's backoff is over

    def _act_on(self, attempt: Attempt) -> None:
        outcome = attempt.outcome
        metrics.ALGORITHM_DURATION.observe(attempt.seconds)
        if isinstance(outcome, Placement):
            decided = time.monotonic() - attempt.seconds
            binding = Binding(attempt.queued, outcome.node, attempt.profile, decided)
            profile = self.core.profile(attempt.profile)
            if profile is None:  # taken away this very moment
                self.binder.submit(binding)
            else:
                self._pre_binding.start(attempt, binding, profile)
        elif isinstance(outcome, Diagnosis):
            self._refuse(attempt, UNSCHEDULABLE, outcome.message(), "unschedulable")
            if attempt.preemption is not None:
                self._preempt(attempt, attempt.preemption)
        elif isinstance(outcome, PluginError):
            log.error("plugin failed", exc_info=outcome, extra={"pod": attempt.pod.key})
            self._refuse(attempt, SCHEDULER_ERROR, str(outcome), "error")
        else:
            self._warn(attempt.pod, attempt.profile, outcome.reason)

    def _refuse(self, attempt: Attempt, reason: str, message: str, result: str) -> None:
        metrics.SCHEDULE_ATTEMPTS.labels(result, attempt.profile).inc()
        metrics.ATTEMPT_DURATION.labels(result, attempt.profile).observe(attempt.seconds)
        log.debug("not placed", extra={"pod": attempt.pod.key, "why": message})
        self._warn(attempt.pod, attempt.profile, truncate_note(message))
        self.conditions.write(Refusal(attempt.pod, reason, message, attempt.nominated))

    def _preempt(self, attempt: Attempt, candidate: Candidate) -> None:
        async def evict() -> None:
            complete = False
            started = metrics.now()
            try:
                complete = await self._evictor.evict(candidate, attempt.pod, attempt.outranked)
            finally:
                self.core.evicted(attempt.pod.uid, complete=complete)
            result = "success" if complete else "error"
            metrics.EVICTIONS.labels(result).inc()
            metrics.EVICTION_DURATION.labels(result).observe(metrics.now() - started)

        metrics.PREEMPTION_VICTIMS.observe(len(candidate.victims))
        task = asyncio.get_running_loop().create_task(evict(), name=f"evictions for {attempt.pod.key}")
        self._evictions.add(task)
        task.add_done_callback(self._evictions.discard)

    # --- what comes back -----------------------------------------------------------------------------------------

    def _settled(self, binding: Binding, result: BindResult, message: str) -> None:
        queued, pod = binding.queued, binding.queued.pod
        if result is BindResult.BOUND:
            now = time.monotonic()
            metrics.SCHEDULE_ATTEMPTS.labels("scheduled", binding.profile).inc()
            metrics.ATTEMPT_DURATION.labels("scheduled", binding.profile).observe(now - binding.decided)
            metrics.POD_ATTEMPTS.observe(queued.attempts)
            attempts = str(queued.attempts) if queued.attempts < 15 else "15+"
            metrics.SLI_DURATION.labels(attempts).observe(now - (queued.first_attempt or now))
            if queued.flushed:
                metrics.AFTER_FLUSH.inc()
            self.conditions.forget(pod.uid)
            self.announcer.announce(pod, binding.node, binding.profile)
            return
        log.info("binding failed", extra={"pod": pod.key, "node": binding.node, "result": result.value, "why": message})
        self.core.bind_failed(queued, retry=result is not BindResult.GONE)
        if result is BindResult.FAILED:
            metrics.SCHEDULE_ATTEMPTS.labels("error", binding.profile).inc()
            text = f'running Bind plugin "DefaultBinder": {message}'
            self._warn(pod, binding.profile, truncate_note(text))
            self.conditions.write(Refusal(pod, SCHEDULER_ERROR, text))

    def _not_bound(self, binding: Binding, error: Exception) -> None:
        """The Pod did not even get to its binding."""
        pod = binding.queued.pod
        self.core.bind_failed(binding.queued, retry=True)
        metrics.SCHEDULE_ATTEMPTS.labels("error", binding.profile).inc()
        self._warn(pod, binding.profile, truncate_note(str(error)))
        self.conditions.write(Refusal(pod, SCHEDULER_ERROR, str(error)))

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        started = metrics.now()
        self.core.on_pod(old, new)
        metrics.EVENT_DURATION.labels(_pod_event(old, new)).observe(metrics.now() - started)
        if old is not None and (new is None or (new.spec.node_name and not old.spec.node_name)):
            self.conditions.forget(old.metadata.uid)
            self._pre_binding.forget(old.metadata.uid)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        started = metrics.now()
        self.core.on_node(old, new)
        event = "NodeAdd" if old is None else "NodeDelete" if new is None else "NodeUpdate"
        metrics.EVENT_DURATION.labels(event).observe(metrics.now() - started)

    def _observe_sizes(self) -> None:
        core = self.core
        metrics.PENDING_PODS.watch(lambda: {(place,): count for place, count in core.queue.counts().items()})
        metrics.UNSCHEDULABLE_PODS.watch(core.queue.rejected)
        metrics.CACHE_SIZE.watch(
            lambda: {
                ("nodes",): core.state.node_count,
                ("pods",): len(core.state.pods),
                ("assumed_pods",): len(core.assumed),
            }
        )
        metrics.PENDING_EVENTS.watch(lambda: {(): len(self.announcer)})


def _count_incoming(place: Place, event: str) -> None:
    # kube-scheduler keeps gated Pods among the unschedulable ones, and counts their arrival there.
    metrics.INCOMING_PODS.labels("unschedulable" if place == "gated" else place, event).inc()


def _pod_event(old: Pod | None, new: Pod | None) -> str:
    some = new or old
    assert some is not None
    kind = "AssignedPod" if some.spec.node_name else "UnschedulablePod"
    if new is None:
        return f"{kind}Delete"
    is_new = old is None or (new.spec.node_name and not old.spec.node_name)
    return f"{kind}Add" if is_new else f"{kind}Update"
