"""All pods of the node: follows the API's pods of this node, and gives each UID its worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.objects import Pod
from nodewright.kube.resources import PODS
from nodewright_agent.pods import killing, preemption
from nodewright_agent.pods.model import PodState, Termination, end_reason
from nodewright_agent.pods.phase import FAILED, TERMINAL
from nodewright_agent.pods.ports import Exit
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.resize.allocation import as_running
from nodewright_agent.pods.resize.manager import ResizeManager, holding
from nodewright_agent.pods.static.manifest import is_mirror, is_static
from nodewright_agent.pods.worker import PodWorker, WorkerDeps
from nodewright_agent.runtime import pause

log = logging.getLogger(__name__)

# A record follows the pod's newer versions after this many seconds: restarts find it, starts do not wait for it.
SAVE_DELAY = 1.0
ROOM_DELAY = 0.05
"""Seconds in which changes of what pods hold are gathered."""

Known = tuple[Pod, PodState]
Admission = Callable[[Pod, list[Pod]], tuple[str, str] | None]
"""Gets a pod and the pods that are on the node already; gives reason and message of a refusal."""


class StaticListener(Protocol):
    """What static pods have beside their workers: what shows them in the API, and who begins them."""

    def mirrored(self, name: str, mirror: Pod | None) -> None:
        """The API has this mirror pod under a name, or none any more."""

    def ended(self, pod: Pod, *, failed: bool) -> None:
        """A static pod's worker is done with it, or failed."""


class PodManager:
    """Owns the workers."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        deps: WorkerDeps,
        records: Records,
        admit: Admission | None = None,
        resize: Admission | None = None,
        preempt: Callable[[Pod, list[Pod]], list[Pod]] | None = None,
    ) -> None:
        """Follow the pods that are bound to ``node_name``.

        ``resize`` refuses other resources for a pod that runs; ``preempt`` names those that have to end for a refused
        one: none where that would not help, or the pod is not critical.
        """
        self.cache: WatchCache[Pod] = WatchCache(
            client, PODS, type=Pod, field_selector=f"spec.nodeName={node_name}", name="pods"
        )
        self.cache.add_handler(self._changed)
        self.workers: dict[str, PodWorker] = {}
        self.failures: dict[str, str] = {}
        """Pods whose worker ended by an error, by UID: nobody looks after them until the API changes them."""
        self.closing = False
        """The workers are being ended, or have been."""
        self.static: StaticListener | None = None
        self._deps = deps
        self._records = records
        self._admit = admit or (lambda pod, others: None)
        self._preempt = preempt or (lambda pod, others: [])
        self._held: dict[str, Pod] = {}
        """Critical pods that wait for others to end, by UID."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._saves: dict[str, asyncio.TimerHandle] = {}
        self._orphans: dict[str, Known] = {}
        self.room_listeners: list[Callable[[], None]] = []
        """Called when pods were added, were resized, or have ended."""
        self._telling: asyncio.TimerHandle | None = None
        self.resizes = ResizeManager(self.workers, resize or (lambda pod, others: None))
        deps.save, deps.resize, deps.room = self._save, self._resized, self._room

    async def run(
        self,
        restored: Mapping[str, Known],
        orphans: Mapping[str, Known],
        node_known: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Take up what an earlier agent left, then follow the API; never returns.

        ``orphans`` have containers but no record: they wait for the API's word, and are stopped when it knows
        nothing of them. The API is followed once ``node_known`` has returned: a pod that is refused is refused for
        good, and to a node without labels no selector matches.
        """
        for pod, state in restored.values():
            self._begin(pod, state)
        self._orphans = dict(orphans)
        if node_known is not None:
            await node_known()
        follow = asyncio.create_task(self.cache.run())
        try:
            await self.cache.wait_synced()
            self._drop_unknown()
            await follow
        finally:
            follow.cancel()

    async def run_alone(
        self, restored: Mapping[str, Known], orphans: Mapping[str, Known], named: Callable[[], Awaitable[object]]
    ) -> None:
        """The same without an API: once ``named`` has returned, what is no static pod is stopped; never returns."""
        for pod, state in restored.values():
            self._begin(pod, state)
        self._orphans = dict(orphans)
        await named()
        self._drop_unknown()
        await asyncio.Event().wait()

    def start_static(self, pod: Pod) -> None:
        """Begin a static pod, or take up the containers that an earlier agent left of it."""
        uid = pod.metadata.uid
        if uid in self._orphans:
            _, state = self._orphans.pop(uid)
            self._begin(pod, state)
        else:
            self._new(pod)
        if (worker := self.workers.get(uid)) is not None:
            self._save(worker)  # nobody else could tell another agent what this was

    def withdraw(self, uid: str) -> None:
        """Forget a pod that still waits for room."""
        self._held.pop(uid, None)

    async def close(self) -> None:
        """End the workers and leave all containers as they are."""
        self.closing = True
        for timer in self._saves.values():
            timer.cancel()
        if self._telling is not None:
            self._telling.cancel()
        self.room_listeners.clear()
        for worker in self.workers.values():
            self._save(worker)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def exited(self, container_id: str, end: Exit) -> None:
        """Pass the end of a container on to its pod."""
        if (uid := pause.pod_of(container_id)) is not None:
            if (owner := self.workers.get(uid)) is not None:
                owner.sandbox_lost()
            return
        worker = self._deps.owners.get(container_id)
        if worker is not None:
            worker.exited(container_id, end)
            return
        waiting = [run for _, state in self._orphans.values() for run in state.all_instances()]
        run = next((run for run in waiting if run.id == container_id), None)
        if run is None:
            log.debug("a container ended that no pod knows", extra={"container": container_id})
        elif run.running:
            run.state, run.exit_code, run.finished_at = "exited", end.code, end.finished_at
            run.reason = end_reason(end.code, end.oom_killed, end.unknown)

    def volumes_changed(self, uid: str) -> None:
        """What a pod's volumes were lacking is there now: try again at once."""
        worker = self.workers.get(uid)
        if worker is not None:
            worker.retry_volumes()

    def pods(self) -> list[Pod]:
        """Return all pods with their present status."""
        return [worker.current() for worker in self.workers.values()]

    def holdings(self) -> list[Pod]:
        """Return the pods that have not ended, with the resources that they hold."""
        return [holding(worker) for worker in self.workers.values() if not worker.state.finished]

    def wake_all(self) -> None:
        """Have every worker look at its pod: something that all depend on has changed."""
        for worker in self.workers.values():
            worker.wake()

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        """A new version of a pod; mirrors of static pods, which run already, are somebody else's."""
        old_mirror, new_mirror = old is not None and is_mirror(old), new is not None and is_mirror(new)
        if self.static is not None and (old_mirror or new_mirror):
            one = new or old
            assert one is not None
            self.static.mirrored(one.key, new if new_mirror else None)
        old, new = None if old_mirror else old, None if new_mirror else new
        if old is not None or new is not None:
            self._take(old, new)

    def _take(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            worker = self.workers.get(old.metadata.uid)
            if worker is not None:
                worker.remove()
            self.failures.pop(old.metadata.uid, None)
            self._held.pop(old.metadata.uid, None)
        if new is None:
            return
        worker = self.workers.get(new.metadata.uid)
        if worker is not None:
            worker.update(new)
            self._save_soon(worker)
        elif new.metadata.uid in self._orphans:
            _, state = self._orphans.pop(new.metadata.uid)
            has = {run.name: run.resources for run in state.all_instances() if run.running and run.resources}
            self._begin(as_running(new, has), state).update(new)
        elif new.status.phase not in TERMINAL or new.metadata.deletion_timestamp is not None:
            self._new(new)

    def _new(self, pod: Pod) -> None:
        self._deps.tracer.mark(pod.metadata.uid, "seen by the agent")
        self._held.pop(pod.metadata.uid, None)
        present = [worker for worker in self.workers.values() if not worker.state.finished]
        refusal = None
        if pod.metadata.deletion_timestamp is None:
            refusal = self._admit(pod, [holding(worker) for worker in present])
            if refusal is not None and self._make_room(pod, present):
                self._held[pod.metadata.uid] = pod
                return
        worker = self._begin(pod, None)
        if refusal is not None:
            worker.reject(*refusal)
            self._tell_room()
        self._save_soon(worker)

    def _make_room(self, pod: Pod, present: list[PodWorker]) -> bool:
        """End pods for a critical one that was refused; tell whether it may wait for that."""
        ending = [worker for worker in present if _preempted(worker)]
        others = [worker for worker in present if worker not in ending]
        if ending and self._admit(pod, [holding(worker) for worker in others]) is None:
            return True
        chosen = {victim.metadata.uid for victim in self._preempt(pod, [holding(worker) for worker in others])}
        for worker in others:
            if worker.uid in chosen:
                worker.event("Warning", preemption.REASON, preemption.MESSAGE)
                now = self._deps.clock()
                deadline = now + killing.window(killing.default_grace(worker.pod))
                end = Termination(now, deadline, preemption.REASON, preemption.MESSAGE, FAILED)
                end.disruption = preemption.DISRUPTION
                worker.end(end)
        return bool(chosen)

    def _resized(self, worker: PodWorker) -> None:
        if worker.desired is not worker.pod or worker.state.resize.pending is not None:
            self.resizes.consider(worker)
            self._tell_room()

    def _room(self) -> None:
        for pod in list(self._held.values()):
            self._new(pod)
        self.resizes.retry()
        self._tell_room()

    def _tell_room(self) -> None:
        """Tell once for many changes: a node that fills up must not sum up all its pods for each."""
        if self._telling is None and self.room_listeners:
            self._telling = asyncio.get_running_loop().call_later(ROOM_DELAY, self._told)

    def _told(self) -> None:
        self._telling = None
        for listener in self.room_listeners:
            listener()

    def _begin(self, pod: Pod, state: PodState | None) -> PodWorker:
        worker = PodWorker(pod, self._deps, state)
        uid = pod.metadata.uid
        self.workers[uid] = worker
        self.failures.pop(uid, None)
        task = asyncio.get_running_loop().create_task(worker.run(), name=f"pod {pod.key}")
        self._tasks[uid] = task
        task.add_done_callback(lambda done: self._ended(uid, done))
        self._tell_room()
        return worker

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        worker = self.workers.pop(uid, None)
        self._tasks.pop(uid, None)
        timer = self._saves.pop(uid, None)
        if timer is not None:
            timer.cancel()
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("a pod worker failed", exc_info=error, extra={"uid": uid})
            if worker is not None and not worker.gone:
                self.failures[uid] = f"pod {worker.pod.key}: its worker failed: {type(error).__name__}: {error}"
        self._deps.tracer.forget(uid)
        if self.static is not None and worker is not None and is_static(worker.pod):
            self.static.ended(worker.pod, failed=task.exception() is not None)
        self._room()

    def _drop_unknown(self) -> None:
        """Stop what the API no longer has: pods deleted for good while the agent was away, and strangers."""
        known = {pod.metadata.uid for pod in self.cache.values()}
        known |= {uid for uid, worker in self.workers.items() if is_static(worker.pod)}
        for pod, state in self._orphans.values():
            log.warning("containers of a pod that the API server does not know are stopped", extra={"pod": pod.key})
            self._begin(pod, state)
        self._orphans = {}
        for uid, worker in list(self.workers.items()):
            if uid not in known:
                worker.remove()
        for uid in self.failures.keys() - known:
            del self.failures[uid]
        self._deps.tracer.prune(known)

    def _save_soon(self, worker: PodWorker) -> None:
        if worker.uid not in self._saves:
            loop = asyncio.get_running_loop()
            self._saves[worker.uid] = loop.call_later(SAVE_DELAY, self._save, worker)

    def _save(self, worker: PodWorker) -> None:
        timer = self._saves.pop(worker.uid, None)
        if timer is not None:
            timer.cancel()
        # What is over is being forgotten: a record written now would be in the way, or stay for ever.
        over = worker.gone and worker.settled
        if worker.uid in self.workers and not over:
            self._records.save(worker.current(), worker.state)


def _preempted(worker: PodWorker) -> bool:
    """Tell whether a pod is being ended to make room."""
    termination = worker.state.termination
    return termination is not None and termination.reason == preemption.REASON
