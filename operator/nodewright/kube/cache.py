"""The list+watch cache: a local copy of a collection that follows the API server, with indexes and handlers.

Life of a cache: list (all pages, one resourceVersion) -> replace the content -> watch from there -> apply events until
the server ends the watch -> watch again from the newest resourceVersion seen. 410 Gone leads back to the list.
Lists ask for the newest state, not for what a server has cached, so that a restart never travels back in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import aclosing
from typing import Any, Generic, cast

from nodewright.kube import metrics
from nodewright.kube.api.meta import PartialObject
from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.codec import T, WatchEvent, decode, key_of
from nodewright.kube.errors import ApiError, BadResponse, ConfigError, Gone, ServerUnavailable
from nodewright.kube.resources import Resource
from nodewright.kube.store import Change, IndexFunction, Store

__all__ = ["WatchCache"]

logger = logging.getLogger(__name__)

Handler = Callable[[T | None, T | None], None]

# The API server sends a bookmark about every minute (60 to 75 s); without a byte for longer, nobody is there.
# Kinds without bookmarks (events) pay a reconnect in that time, which costs next to nothing.
IDLE_TIMEOUT = 90.0
_HEALTHY_WATCH = 5.0  # seconds; a watch that ended sooner counts as a failure for the backoff


class WatchCache(Generic[T]):
    """Keeps a copy of a collection. One task calls `run()`; all else is called from the same loop.

    `type` is a struct (or dict) whose `metadata` has name, namespace, uid and resource_version. Objects in the cache
    are shared: nobody may change them. Index functions give the values under which an object is to be found.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        type: type[T] = dict,  # type: ignore[assignment]
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, IndexFunction[T]] | None = None,
        name: str = "",
        idle_timeout: float = IDLE_TIMEOUT,
        backoff: Backoff | None = None,
    ) -> None:
        """Describe what to follow; nothing is sent before `run()`."""
        self.name = name or resource.plural
        self.resource = resource
        self.resource_version = 0
        self._client = client
        self._type = type
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._store: Store[T] = Store(indexes or {})
        self._handlers: list[Handler[T]] = []
        self._idle_timeout = idle_timeout
        self._backoff = backoff or Backoff(0.8, 30.0)
        self._synced = asyncio.Event()
        self._version: str | None = None  # where to watch from; None: list first
        self._waiters: list[tuple[int, asyncio.Future[bool]]] = []
        self._last_failure = ""
        self._hurry = asyncio.Event()
        self._watching: asyncio.Timeout | None = None  # the open watch, which ends when this expires
        self._size = metrics.CACHE_OBJECTS.labels(self.name)

    @property
    def has_synced(self) -> bool:
        """Whether the first list has been taken in."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    def get(self, key: str) -> T | None:
        """Give the object of a key (`namespace/name`, or `name`)."""
        return self._store.get(key)

    def values(self) -> Collection[T]:
        """Give all objects: a live view; copy it before awaiting."""
        return self._store.values()

    def keys(self) -> Collection[str]:
        """Give all keys: a live view."""
        return self._store.keys()

    def by_index(self, index: str, value: Hashable) -> Collection[T]:
        """Give the objects that an index function gave this value for: a live view. KeyError for an unknown index."""
        return self._store.by_index(index, value)

    def __len__(self) -> int:
        """Count the objects."""
        return len(self._store)

    async def wait_for(self, resource_version: int | str, timeout: float) -> bool:
        """Wait until all up to a resourceVersion was seen; False when that takes longer than `timeout` seconds."""
        wanted = int(resource_version)
        if self.resource_version >= wanted:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (wanted, future)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return False
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def catch_up(self, timeout: float) -> None:
        """See all that was stored before this call, also where the watch is dead and nobody has noticed yet.

        The server's newest version is asked for. Where that has not been seen, a new watch is opened, which starts with
        all that was missed; in a quiet cluster nothing was, and then this returns after `timeout` seconds.
        """
        newest = await self._client.newest_version(self.resource, self._namespace)
        if self.resource_version < _number(newest):
            self.renew()
            await self.wait_for(newest, timeout)

    def renew(self) -> None:
        """Open a new watch from where the present one stands, now also where one has failed lately."""
        self._hurry.set()
        if self._watching is not None and not self._watching.expired():
            self._watching.reschedule(asyncio.get_running_loop().time())

    def add_handler(self, handler: Handler[T]) -> None:
        """Call `handler(old, new)` for every change, in order, in the loop; None stands for absent.

        Handlers added before `run()` see the first list as additions. One that raises is logged, and harms no other.
        """
        self._handlers.append(handler)

    async def run(self) -> None:
        """List and watch until cancelled. Failures are logged, and retried after growing, jittered pauses."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            failed = True
            try:
                if self._version is None:
                    await self._list()
                started = loop.time()
                async with asyncio.timeout(None) as self._watching:
                    await self._watch(self._version or "")
                failed = False
                metrics.CACHE_WATCH_ENDS.labels(self.name, "ended").inc()
            except TimeoutError:
                metrics.CACHE_WATCH_ENDS.labels(self.name, "renewed").inc()
                continue  # `renew` asked for a new one
            except Gone as error:
                metrics.CACHE_WATCH_ENDS.labels(self.name, "gone").inc()
                logger.info("cache %s: %s; listing again", self.name, error, extra={"cache": self.name})
                self._version = None
                failed = False
            except ServerUnavailable as error:
                failed = not self._was_silent(error, loop.time() - started)
                metrics.CACHE_WATCH_ENDS.labels(self.name, "failed" if failed else "silent").inc()
                if failed:
                    self._report(error)
            except (ApiError, ConfigError) as error:
                metrics.CACHE_WATCH_ENDS.labels(self.name, "failed").inc()
                self._report(error)
                if isinstance(error, BadResponse):
                    self._version = None  # what was sent can't be trusted: start from a list
            finally:
                self._watching = None
            if loop.time() - started >= _HEALTHY_WATCH:
                self._backoff.reset()
                if not failed:
                    continue
            await self._pause(self._backoff.next())

    async def _pause(self, seconds: float) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass  # the usual end

    def _was_silent(self, error: ServerUnavailable, seconds: float) -> bool:
        """Tell a watch without any byte from a failure: a server that knows of no progress sends no bookmarks either.

        Should it be a failure, opening the next watch tells.
        """
        return self._version is not None and error.reason == "Timeout" and seconds >= self._idle_timeout

    async def _list(self) -> None:
        bad: set[str] = set()
        found = await self._client.list(
            self.resource,
            self._namespace,
            type=self._type,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            on_bad=lambda body, error: bad.add(self._skip(body, error)),
        )
        metrics.CACHE_LISTS.labels(self.name).inc()
        # An object that can't be read any more is not gone: keep what was known of it.
        changes = self._store.replace(found.items, keep=bad)
        self._version = found.resource_version
        self.resource_version = 0  # the list counts even if it is older: etcd may have been restored from a backup
        self._advance(found.resource_version)
        self._dispatch(changes)
        self._synced.set()
        self._recovered()

    async def _watch(self, version: str) -> None:
        events = self._client.watch(
            self.resource,
            self._namespace,
            type=self._type,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            resource_version=version,
            idle_timeout=self._idle_timeout,
            on_bad=self._skip,
        )
        async with aclosing(cast("Any", events)) as stream:
            async for event in stream:
                self._apply(event)

    def _apply(self, event: WatchEvent[T]) -> None:
        number = _number(event.resource_version)
        if 0 < number < self.resource_version:
            raise Gone(410, "Gone", f"the watch went back from {self.resource_version} to {number}")
        changes: list[Change[T]] = []
        if event.type in ("ADDED", "MODIFIED"):
            changes = self._store.put(event.object)
        elif event.type == "DELETED":
            changes = self._store.remove(key_of(event.object), event.object)
        if event.resource_version:
            self._version = event.resource_version
        # First the number, then the handlers: who is woken by a handler may ask `wait_for`.
        self._advance(event.resource_version)
        self._dispatch(changes)
        self._recovered()

    def _advance(self, version: str) -> None:
        self.resource_version = max(self.resource_version, _number(version))
        for entry in [e for e in self._waiters if e[0] <= self.resource_version]:
            self._waiters.remove(entry)
            if not entry[1].done():
                entry[1].set_result(True)

    def _dispatch(self, changes: list[Change[T]]) -> None:
        self._size.set(len(self._store))
        for old, new in changes:
            for handler in self._handlers:
                try:
                    handler(old, new)
                except Exception:
                    key = key_of(new if new is not None else old)
                    logger.exception("cache %s: a handler failed on %s", self.name, key, extra={"cache": self.name})

    def _skip(self, body: bytes, error: Exception) -> str:
        metrics.CACHE_UNDECODABLE.labels(self.name).inc()
        try:
            key = key_of(decode(body, PartialObject, self.name))
        except ApiError:
            key = ""
        logger.error("cache %s: object %s is skipped: %s", self.name, key or "?", error, extra={"cache": self.name})
        return key

    def _report(self, error: Exception) -> None:
        """Say the same thing aloud only once; a server that is away for an hour is one line, not a hundred."""
        text = str(error)
        level = logging.DEBUG if text == self._last_failure else logging.WARNING
        self._last_failure = text
        logger.log(level, "cache %s: %s; trying again", self.name, text, extra={"cache": self.name})

    def _recovered(self) -> None:
        if self._last_failure:
            logger.info("cache %s: in touch with the API server again", self.name, extra={"cache": self.name})
            self._last_failure = ""


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else 0
