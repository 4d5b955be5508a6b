"""`Scheduled` events: told after the fact, so that telling never delays placing.

A binding is what a Pod waits for; its event is what a person may read later. Both cost the API server about the same,
so events wait until no binding is under way. They do not wait for ever: one that is old, or a queue that is long, is
posted alongside bindings. When even that is not enough, the queue's bound is reached and the oldest are dropped, and
counted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.errors import AlreadyExists, ApiError, NotFound
from nodewright.kube.quickpost import QuickPoster
from nodewright.kube.times import now_rfc3339

from . import metrics
from .pods import PodInfo

log = logging.getLogger(__name__)

CAPACITY = 50_000
# Above this many, events are posted even while bindings are.
HIGH_WATER = 20_000
MAX_AGE = 30.0
ATTEMPTS = 12  # client-go's: a restart of the API server is waited out
_NAME_ROOM = 253 - 17  # what the API's limit on names leaves beside the suffix

_encoder = msgspec.json.Encoder()


class Announcement(msgspec.Struct):
    """A Pod that got its node. `time` is RFC 3339 with microseconds, `at` the monotonic clock."""

    pod: PodInfo
    node: str
    profile: str
    time: str
    at: float


class Announcer:
    """Posts events.k8s.io/v1 events from a bounded queue, `workers` at a time, while `is_busy` is false."""

    def __init__(
        self,
        client: Client,
        instance: str,
        *,
        is_busy: Callable[[], bool],
        wait_idle: Callable[[], Awaitable[None]],
        workers: int = 8,
        capacity: int = CAPACITY,
        quick: QuickPoster | None = None,
    ) -> None:
        """`instance` names this process in its events; `wait_idle` returns once `is_busy` would be false."""
        self._client = client
        self._quick = quick
        self._instance = instance
        self._is_busy = is_busy
        self._wait_idle = wait_idle
        self._workers = workers
        self._waiting: deque[Announcement] = deque(maxlen=capacity)
        self._active = 0
        self._arrived = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()
        self._flushing = False
        self._numbers = itertools.count(time.time_ns())

    def __len__(self) -> int:
        """Events that are not posted yet."""
        return len(self._waiting) + self._active

    def announce(self, pod: PodInfo, node: str, profile: str) -> None:
        """Tell that a Pod was bound; returns at once."""
        if len(self._waiting) == self._waiting.maxlen:
            metrics.DROPPED_EVENTS.labels("full").inc()
        self._waiting.append(Announcement(pod, node, profile, now_rfc3339(micro=True), time.monotonic()))
        self._done.clear()
        self._arrived.set()

    async def run(self) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def flush(self) -> None:
        """Post all there is, bindings or not. For an orderly end; bound it in time."""
        self._flushing = True
        self._arrived.set()
        await self._done.wait()

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            if self._is_held():
                await self._until_due()
                continue
            announcement = self._waiting.popleft()
            self._active += 1
            try:
                await self._post(announcement)
            finally:
                self._active -= 1
                if not len(self):
                    self._done.set()

    def _is_held(self) -> bool:
        is_urgent = (
            self._flushing
            or len(self._waiting) > HIGH_WATER
            or (bool(self._waiting) and time.monotonic() - self._waiting[0].at > MAX_AGE)
        )
        return self._is_busy() and not is_urgent

    async def _until_due(self) -> None:
        """Wait for a pause in binding, or until the oldest event is due whatever happens."""
        remaining = self._waiting[0].at + MAX_AGE - time.monotonic()
        try:
            async with asyncio.timeout(min(max(remaining, 0.01), 1.0)):
                await self._wait_idle()
        except TimeoutError:
            pass  # whether it is due now is for the caller to see

    async def _post(self, announcement: Announcement) -> None:
        path = f"/apis/events.k8s.io/v1/namespaces/{announcement.pod.pod.metadata.namespace}/events"
        body = event_body(announcement, self._instance, next(self._numbers))
        backoff = Backoff(0.5, 10.0)
        if self._quick is not None and 200 <= await self._quick.post(path, body) < 300:
            return
        for _ in range(ATTEMPTS):
            try:
                await self._client.request("POST", path, body=body)
                return
            except AlreadyExists:
                return  # an earlier try was stored, and its answer lost
            except ApiError as error:
                if is_namespace_ending(error):
                    # Nobody will read it.
                    log.debug("event not posted", extra={"pod": announcement.pod.key, "error": str(error)})
                    break
                log.warning("event not posted", extra={"pod": announcement.pod.key, "error": str(error)})
                await asyncio.sleep(backoff.next())
        metrics.DROPPED_EVENTS.labels("refused").inc()


def is_namespace_ending(error: ApiError) -> bool:
    """Whether the namespace is gone or going. Other refusals pass: an API server that starts forbids everything."""
    causes = error.details.get("causes") or []
    return isinstance(error, NotFound) or any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


def event_body(announcement: Announcement, instance: str, number: int) -> bytes:
    """The event in upstream's wording."""
    pod = announcement.pod
    meta = pod.pod.metadata
    return _encoder.encode(
        {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            # The suffix, as client-go's, makes names unique and sorts them by time.
            "metadata": {"name": f"{meta.name[:_NAME_ROOM]}.{number:x}", "namespace": meta.namespace},
            "eventTime": announcement.time,
            "type": "Normal",
            "reason": "Scheduled",
            "action": "Binding",
            "note": f"Successfully assigned {pod.key} to {announcement.node}",
            "reportingController": announcement.profile,
            "reportingInstance": instance,
            "regarding": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": pod.uid,
                "resourceVersion": meta.resource_version,
            },
        }
    )
