"""The controller base class: caches feed a queue of keys, workers call `reconcile(key)`.

Level-triggered: a key says that something about an object may have changed, never what. `reconcile` reads all it
needs from the caches as they are now, acts, and returns; it is called again for every later change, after errors
with growing delay, and never twice at the same time for one key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from nodewright.framework import logs, metrics
from nodewright.framework.consistency import ConsistencyGuard
from nodewright.framework.queue import QueueShutDown, WorkQueue
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, Conflict, ServerUnavailable, TooManyRequests
from nodewright.kube.events import EventRecorder
from nodewright.kube.resources import Resource

if TYPE_CHECKING:
    import kopf

T = TypeVar("T")

CUSTOM_GROUP = "nodewright.dev"

# How long a key is held back before a log line says so; the wait itself goes on, for acting on old data is never right.
STALE_WARNING = 30.0


class Result(msgspec.Struct, frozen=True):
    """What `reconcile` may return: look again after so many seconds (besides all changes)."""

    requeue_after: float | None = None


class TerminalError(Exception):
    """Raised by `reconcile` when retrying cannot help until something changes; logged and counted, not retried."""


class Controller:
    """Base of all controllers: a subclass sets `name`, declares caches by `watch` in `__init__`, has `reconcile`."""

    name: ClassVar[str]
    component: ClassVar[str] = ""  # who reports the events; NAME-controller by default
    keeps_objects: ClassVar[bool] = False  # made with `namespace`, where the operator has objects of its own
    workers: int = 2

    def __init__(self, client: Client, *, identity: str = "") -> None:
        """`identity` names this process in events; the controller's own state starts empty."""
        self.client = client
        self.queue: WorkQueue[str] = WorkQueue(self.name)
        self.guard = ConsistencyGuard()
        self.events = EventRecorder(client, component=self.component or f"{self.name}-controller", instance=identity)
        self.log = logging.getLogger(type(self).__module__)
        self._caches: list[WatchCache[Any]] = []
        self._parked: dict[str, asyncio.Task[None]] = {}

    # -- what subclasses use ---------------------------------------------------------------------------------------

    def watch(
        self,
        resource: Resource,
        *,
        type: type[T],
        enqueue: Callable[[T | None, T | None], Iterable[str]] | None = None,
        indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> WatchCache[T]:
        """Declare a cache. `enqueue(old, new)` gives the keys to look at after a change (old or new may be None).

        Without `enqueue` the changed object's own key is queued. Handlers run in the event loop and must be quick.
        """
        cache: WatchCache[T] = WatchCache(
            self.client,
            resource,
            type=type,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            indexes=indexes or {},
            name=f"{self.name}/{resource.plural}",
        )
        return self.share(cache, enqueue=enqueue)

    def share(
        self, cache: WatchCache[T], *, enqueue: Callable[[T | None, T | None], Iterable[str]] | None = None
    ) -> WatchCache[T]:
        """Declare a cache that other controllers of this process may use as well; `enqueue` as in `watch`.

        The process runs a cache once, however many controllers have declared it.
        """
        compute: Callable[[T | None, T | None], Iterable[str]] = enqueue or _own_key

        def on_change(old: T | None, new: T | None) -> None:
            if enqueue is None and cache.has_synced:
                self._note_change(old, new)
            for key in compute(old, new):
                self.queue.add(key)

        cache.add_handler(on_change)
        self.guard.watch(cache)
        self._caches.append(cache)
        return cache

    async def reconcile(self, key: str) -> Result | None:
        """Make the world fit the object named by the key. Exceptions lead to a retry with growing delay."""
        raise NotImplementedError

    def register_kopf(self, registry: kopf.OperatorRegistry) -> None:
        """Register kopf handlers (admission, human-rate work on own custom resources); none by default."""

    # -- what the process uses -------------------------------------------------------------------------------------

    def custom_kinds(self) -> set[Resource]:
        """The custom resources of this project that must be defined before this controller can start."""
        return {cache.resource for cache in self._caches if cache.resource.group == CUSTOM_GROUP}

    def caches(self) -> list[WatchCache[Any]]:
        """The caches declared by `watch`."""
        return list(self._caches)

    async def run_workers(self) -> None:
        """Work until cancelled. The caches must have synced: a half-filled cache looks like deletions."""
        metrics.MAX_CONCURRENT.labels(self.name).set(self.workers)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.workers):
                    group.create_task(self._work(), name=f"{self.name} worker {number}")
        finally:
            parked = list(self._parked.values())
            for task in parked:
                task.cancel()
            await asyncio.gather(*parked, return_exceptions=True)

    async def _work(self) -> None:
        active = metrics.ACTIVE_WORKERS.labels(self.name)
        active.inc(0)
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDown:
                return
            active.inc()
            try:
                await self._process(key)
            finally:
                active.dec()
                self.queue.done(key)

    async def _process(self, key: str) -> None:
        if not self.guard.is_ready(key):
            self._park(key)
            return
        started = time.monotonic()
        with logs.reconcile_context(self.name, key):
            outcome = await self._attempt(key)
        metrics.RECONCILE_TIME.labels(self.name).observe(time.monotonic() - started)
        metrics.RECONCILES.labels(self.name, outcome).inc()
        if outcome == "error":
            metrics.RECONCILE_ERRORS.labels(self.name).inc()

    async def _attempt(self, key: str) -> str:
        """Reconcile once; log errors for people, decide on the retry. Gives the metric's result label."""
        try:
            result = await self.reconcile(key)
        except TerminalError as error:
            self.log.error("not retried: %s", error)
            self.queue.forget(key)
            return "error"
        except Conflict as error:
            # Somebody else wrote first; the watch brings the new state, and the retry finds it there.
            self.queue.add_rate_limited(key)
            self.log.info("conflict, will retry: %s", error)
            return "requeue"
        except (ServerUnavailable, TooManyRequests) as error:
            delay = self.queue.add_rate_limited(key)
            self.log.warning("the API server can't serve us now, retry in %.1f s: %s", delay, error)
            return "error"
        except ApiError as error:
            delay = self.queue.add_rate_limited(key)
            self.log.error("retry in %.1f s: %s", delay, error)
            return "error"
        except Exception:
            delay = self.queue.add_rate_limited(key)
            self.log.exception("unexpected error, retry in %.1f s", delay)
            return "error"
        self.queue.forget(key)
        if result is not None and result.requeue_after is not None:
            self.queue.add_after(key, result.requeue_after)
            return "requeue_after"
        return "success"

    def _note_change(self, old: Any, new: Any) -> None:
        """Log that a new wish of a user's has arrived: the step "seen by the controller" of `nodewright trace`."""
        if new is None or (old is not None and old.metadata.generation == new.metadata.generation):
            return
        with logs.reconcile_context(self.name, new.key):
            self.log.info("observed", extra={"generation": new.metadata.generation})

    def _park(self, key: str) -> None:
        """Put the key back once the guard is satisfied, without holding a worker meanwhile."""
        metrics.STALE_SKIPS.labels(self.name).inc()
        if key in self._parked:
            return
        task = asyncio.get_running_loop().create_task(self._unpark(key), name=f"{self.name} waits for caches: {key}")
        self._parked[key] = task
        task.add_done_callback(lambda _task: self._parked.pop(key, None))

    async def _unpark(self, key: str) -> None:
        while not await self.guard.ready(key, STALE_WARNING):
            self.log.warning("the caches do not show our last write for %s yet; its reconciliation waits", key)
        with contextlib.suppress(KeyError):
            del self._parked[key]
        self.queue.add(key)


def _own_key(old: Any, new: Any) -> Iterable[str]:
    return ((new if new is not None else old).key,)
