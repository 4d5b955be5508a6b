"""Posting events: never blocks the caller, aggregates repeats, limits what one object can cause.

Events are a service to people: when the queue is full or the server stays away, they are dropped and counted, never
waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from nodewright.kube import metrics, times
from nodewright.kube.api.events import Event, EventSource, EventV1
from nodewright.kube.api.meta import ObjectMeta, ObjectReference
from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.codec import key_of
from nodewright.kube.correlator import SERIES_FINISH, Correlator, SeriesCorrelator, Verdict
from nodewright.kube.errors import ApiError, ConfigError, NotFound
from nodewright.kube.resources import EVENTS, EVENTS_V1

__all__ = ["NORMAL", "WARNING", "EventRecorder", "ObjectRef", "reference"]

logger = logging.getLogger(__name__)

NORMAL = "Normal"
WARNING = "Warning"
ObjectRef = ObjectReference

_MAX_TRIES = 12  # client-go's
_MAX_NOTE = 1024  # the API's limit for events.k8s.io; used for both, since longer texts help nobody
_MAX_NAME = 253


def reference(obj: Any) -> ObjectReference:
    """Build the reference to an object: a reference itself, a struct with API_VERSION and KIND, or a dict."""
    if isinstance(obj, ObjectReference):
        return obj
    if isinstance(obj, dict):
        meta = obj.get("metadata") or {}
        return ObjectReference(
            kind=obj.get("kind") or "",
            namespace=meta.get("namespace") or "",
            name=meta.get("name") or "",
            uid=meta.get("uid") or "",
            api_version=obj.get("apiVersion") or "",
            resource_version=meta.get("resourceVersion") or "",
        )
    if not getattr(obj, "KIND", ""):
        raise TypeError(f"{type(obj).__name__} does not know its kind; pass an ObjectReference")
    meta = obj.metadata
    return ObjectReference(
        kind=obj.KIND,
        namespace=getattr(meta, "namespace", ""),
        name=meta.name,
        uid=getattr(meta, "uid", ""),
        api_version=obj.API_VERSION,
        resource_version=getattr(meta, "resource_version", ""),
    )


class _Lane:
    """A queue of its own for some of the objects, so that events of one object stay in order."""

    def __init__(self, series_api: bool) -> None:
        self.queue: deque[Event | EventV1] = deque()
        self.wake = asyncio.Event()
        self.hurry = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.core = Correlator()
        self.series = SeriesCorrelator() if series_api else None


class EventRecorder:
    """Collects events and posts them. `run()` does the posting; `event()` can be called before it runs."""

    def __init__(
        self,
        client: Client,
        *,
        component: str,
        instance: str,
        series_api: bool = False,
        queue_size: int = 20_000,
        lanes: int = 2,
        pause: float = 0.0,
        clock: Callable[[], datetime] = times.now,
        steady: Callable[[], float] = time.monotonic,
        retry: Callable[[], Backoff] = lambda: Backoff(1.0, 10.0),
    ) -> None:
        """Take who reports; `series_api` posts to events.k8s.io/v1 (as kube-scheduler does) instead of core/v1.

        `pause`: seconds that what is queued waits, so that it is not in the way of what it tells about, and that
        several news of one event become one request. Neither a warning nor `flush` waits for it.
        """
        self._client = client
        self._component = component
        self._instance = instance
        self._series_api = series_api
        self._queue_size = queue_size
        self._lanes = [_Lane(series_api) for _ in range(max(1, lanes))]
        self._clock = clock
        self._steady = steady
        self._retry = retry
        self._pause = pause
        self._flushing = 0
        self._last_nanos = 0

    def event(
        self, ref: Any, type: str, reason: str, message: str, *, action: str = "", related: Any | None = None
    ) -> None:
        """Queue an event about an object (see `reference`); `type` is Normal or Warning. Never blocks.

        `action` says what was tried (events.k8s.io asks for it; `reason` stands in).
        """
        regarding = reference(ref)
        lane = self._lanes[hash((regarding.uid, regarding.namespace, regarding.name)) % len(self._lanes)]
        if sum(len(each.queue) for each in self._lanes) >= self._queue_size:
            metrics.EVENTS_DROPPED.labels("queue_full").inc()
            logger.warning("event queue is full; dropped %s for %s/%s", reason, regarding.namespace, regarding.name)
            return
        if len(message) > _MAX_NOTE:
            message = message[: _MAX_NOTE - 3] + "..."
        build = self._new_series if self._series_api else self._new_core
        lane.queue.append(build(regarding, type, reason, message, action, reference(related) if related else None))
        lane.idle.clear()
        lane.wake.set()
        if type == "Warning":
            lane.hurry.set()

    def _new_core(
        self, ref: ObjectReference, type: str, reason: str, message: str, action: str, related: ObjectReference | None
    ) -> Event:
        now = times.format_rfc3339(self._clock())
        return Event(
            metadata=self._meta(ref),
            involved_object=ref,
            reason=reason,
            message=message,
            source=EventSource(self._component, self._instance),
            first_timestamp=now,
            last_timestamp=now,
            count=1,
            type=type,
            action=action,
            related=related,
            reporting_component=self._component,
            reporting_instance=self._instance,
        )

    def _new_series(
        self, ref: ObjectReference, type: str, reason: str, message: str, action: str, related: ObjectReference | None
    ) -> EventV1:
        return EventV1(
            metadata=self._meta(ref),
            event_time=times.format_rfc3339(self._clock(), micro=True),
            regarding=ref,
            reason=reason,
            note=message,
            type=type,
            action=action or reason,
            related=related,
            reporting_controller=self._component,
            reporting_instance=self._instance,
        )

    def _meta(self, ref: ObjectReference) -> ObjectMeta:
        # unique even where the clock is coarse or steps back
        self._last_nanos = max(self._last_nanos + 1, int(self._clock().timestamp() * 1_000_000) * 1000)
        suffix = f".{self._last_nanos:x}"
        return ObjectMeta(name=ref.name[: _MAX_NAME - len(suffix)] + suffix, namespace=ref.namespace or "default")

    async def run(self) -> None:
        """Post queued events until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._serve(lane))

    async def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all queued events are posted or given up; False when that takes longer. `run` must be running."""
        self._flushing += 1
        try:
            async with asyncio.timeout(timeout):
                for lane in self._lanes:
                    lane.hurry.set()
                for lane in self._lanes:
                    await lane.idle.wait()
        except TimeoutError:
            return False
        finally:
            self._flushing -= 1
            for lane in self._lanes:
                lane.hurry.clear()
        return True

    async def _serve(self, lane: _Lane) -> None:
        while True:
            while lane.queue:
                await self._wait(lane)
                for verdict, event in self._take(lane):
                    await self._post(verdict, event)
            lane.idle.set()
            lane.wake.clear()
            if lane.series is None or not len(lane.series):
                await lane.wake.wait()
                continue
            try:  # series without news have to be closed at some time
                async with asyncio.timeout(SERIES_FINISH):
                    await lane.wake.wait()
            except TimeoutError:
                for event in lane.series.finished(self._steady()):
                    await self._post(Verdict.PATCH, event)

    async def _wait(self, lane: _Lane) -> None:
        if self._pause and not self._flushing:
            try:
                async with asyncio.timeout(self._pause):
                    await lane.hurry.wait()
            except TimeoutError:
                pass
        lane.hurry.clear()

    def _take(self, lane: _Lane) -> list[tuple[Verdict, Event | EventV1]]:
        """What to post for all that is queued: of several news of one core event only the last, which counts them all.

        So a burst of similar events costs a few requests, however fast it comes.
        """
        taken: dict[object, tuple[Verdict, Event | EventV1]] = {}
        while lane.queue:
            verdict, event = self._correlate(lane, lane.queue.popleft())
            if verdict is Verdict.SKIP:
                continue
            if not isinstance(event, Event):
                taken[len(taken)] = verdict, event
                continue
            key = key_of(event)
            earlier = taken.get(key)
            taken[key] = verdict if earlier is None else earlier[0], event
        return list(taken.values())

    def _correlate(self, lane: _Lane, event: Event | EventV1) -> tuple[Verdict, Event | EventV1]:
        now = self._steady()
        if isinstance(event, EventV1):
            assert lane.series is not None
            return lane.series.correlate(event, now)
        verdict, result = lane.core.correlate(event, now)
        if verdict is Verdict.SKIP:
            metrics.EVENTS_DROPPED.labels("spam").inc()
        return verdict, result

    async def _post(self, verdict: Verdict, event: Event | EventV1) -> None:
        backoff = self._retry()
        for attempt in range(_MAX_TRIES):
            if attempt:
                await asyncio.sleep(backoff.next())
            try:
                await self._send(verdict, event)
                return
            except ApiError as error:
                if 400 <= error.status < 500 and error.status != 429:
                    # AlreadyExists, a namespace on its way out, no permission: trying again would change nothing
                    level = (
                        logging.DEBUG if error.reason in ("AlreadyExists", "Forbidden", "NotFound") else logging.WARNING
                    )
                    logger.log(level, "event %s was refused: %s", key_of(event), error)
                    break
                logger.debug("event %s: %s; trying again", key_of(event), error)
            except ConfigError as error:
                logger.debug("event %s: %s; trying again", key_of(event), error)
        else:
            logger.warning("event %s was given up after %d tries", key_of(event), _MAX_TRIES)
        metrics.EVENTS_DROPPED.labels("failed").inc()

    async def _send(self, verdict: Verdict, event: Event | EventV1) -> None:
        resource = EVENTS if isinstance(event, Event) else EVENTS_V1
        meta = event.metadata
        if verdict is Verdict.PATCH:
            try:
                await self._client.patch(resource, meta.name, _patch(event), meta.namespace)
                return
            except NotFound:
                pass  # events expire after an hour; start it anew with its count
        await self._client.create(resource, event, meta.namespace)


def _patch(event: Event | EventV1) -> dict[str, Any]:
    if isinstance(event, Event):
        return {"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message}
    assert event.series is not None
    return {"series": {"count": event.series.count, "lastObservedTime": event.series.last_observed_time}}
