"""All pods of the node: follows the API's pods of this node, and gives each UID its worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.objects import Pod
from nodewright.kube.resources import PODS
from nodewright_agent.pods.model import PodState
from nodewright_agent.pods.phase import TERMINAL
from nodewright_agent.pods.ports import Exit
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.worker import PodWorker, WorkerDeps

log = logging.getLogger(__name__)

# A record follows the pod's newer versions after this many seconds: restarts find it, starts do not wait for it.
SAVE_DELAY = 1.0

Known = tuple[Pod, PodState]
Admission = Callable[[Pod, list[Pod]], tuple[str, str] | None]
"""Gets a pod and the pods that are on the node already; gives reason and message of a refusal."""


class PodManager:
    """Owns the workers."""

    def __init__(
        self, client: Client, node_name: str, deps: WorkerDeps, records: Records, admit: Admission | None = None
    ) -> None:
        """Follow the pods that are bound to ``node_name``."""
        self.cache: WatchCache[Pod] = WatchCache(
            client, PODS, type=Pod, field_selector=f"spec.nodeName={node_name}", name="pods"
        )
        self.cache.add_handler(self._changed)
        self.workers: dict[str, PodWorker] = {}
        self.failures: dict[str, str] = {}
        """Pods whose worker ended by an error, by UID: nobody looks after them until the API changes them."""
        self._deps = deps
        self._records = records
        self._admit = admit or (lambda pod, others: None)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._saves: dict[str, asyncio.TimerHandle] = {}
        self._orphans: dict[str, Known] = {}
        deps.save = self._save

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

    async def close(self) -> None:
        """End the workers and leave all containers as they are."""
        for timer in self._saves.values():
            timer.cancel()
        for worker in self.workers.values():
            self._save(worker)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def exited(self, container_id: str, end: Exit) -> None:
        """Pass the end of a container on to its pod."""
        worker = self._deps.owners.get(container_id)
        if worker is None:
            log.debug("a container ended that no pod knows", extra={"container": container_id})
            return
        worker.exited(container_id, end)

    def volumes_changed(self, uid: str) -> None:
        """What a pod's volumes were lacking is there now: try again at once."""
        worker = self.workers.get(uid)
        if worker is not None:
            worker.retry_volumes()

    def pods(self) -> list[Pod]:
        """Return all pods with their present status."""
        return [worker.current() for worker in self.workers.values()]

    def wake_all(self) -> None:
        """Have every worker look at its pod: something that all depend on has changed."""
        for worker in self.workers.values():
            worker.wake()

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            worker = self.workers.get(old.metadata.uid)
            if worker is not None:
                worker.remove()
            self.failures.pop(old.metadata.uid, None)
        if new is None:
            return
        worker = self.workers.get(new.metadata.uid)
        if worker is not None:
            worker.update(new)
            self._save_soon(worker)
        elif new.metadata.uid in self._orphans:
            _, state = self._orphans.pop(new.metadata.uid)
            self._begin(new, state)
        elif new.status.phase not in TERMINAL or new.metadata.deletion_timestamp is not None:
            self._new(new)

    def _new(self, pod: Pod) -> None:
        self._deps.tracer.mark(pod.metadata.uid, "seen by the agent")
        others = [worker.pod for worker in self.workers.values() if not worker.state.finished]
        worker = self._begin(pod, None)
        if pod.metadata.deletion_timestamp is None and (refusal := self._admit(pod, others)) is not None:
            worker.reject(*refusal)
        self._save_soon(worker)

    def _begin(self, pod: Pod, state: PodState | None) -> PodWorker:
        worker = PodWorker(pod, self._deps, state)
        uid = pod.metadata.uid
        self.workers[uid] = worker
        self.failures.pop(uid, None)
        task = asyncio.get_running_loop().create_task(worker.run(), name=f"pod {pod.key}")
        self._tasks[uid] = task
        task.add_done_callback(lambda done: self._ended(uid, done))
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

    def _drop_unknown(self) -> None:
        """Stop what the API no longer has: pods deleted for good while the agent was away, and strangers."""
        known = {pod.metadata.uid for pod in self.cache.values()}
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
        if worker.uid in self.workers:
            self._records.save(worker.current(), worker.state)
