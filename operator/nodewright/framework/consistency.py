"""The consistency guard: no decision from a cache older than our own last write (KEP-5647's rule).

A write is known by the resourceVersion of its answer: the cache is new enough once it has seen that version or a later
one, be it by a bookmark. A deletion has no such version (the object may be gone, or may get a deletionTimestamp); it is
known by name and UID: the cache is new enough once that very object is gone, or is marked as being deleted.

A write whose answer was lost may have been done: of that only the API server can tell. The guard remembers that there
is a doubt; whoever acts on the cache asks the server first, records what the cache must show, and dispels the doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any, Protocol


class SeenCache(Protocol):
    """What the guard needs of a watch cache."""

    @property
    def resource_version(self) -> int:
        """The newest version seen."""

    def get(self, key: str) -> Any:
        """The object or None."""

    async def wait_for(self, resource_version: int | str, timeout: float) -> bool:
        """Wait until that version is seen; False after `timeout` seconds."""

    def add_handler(self, fn: Any) -> None:
        """Call fn(old, new) on each change."""


class _Pending:
    __slots__ = ("deletions", "versions")

    def __init__(self) -> None:
        self.versions: dict[SeenCache, int] = {}
        self.deletions: dict[tuple[SeenCache, str], str] = {}


class ConsistencyGuard:
    """Remembers, per key of a work queue, which own writes its caches have not shown yet."""

    def __init__(self) -> None:
        """Nothing is pending."""
        self._pending: dict[Hashable, _Pending] = {}
        self._deleting: dict[tuple[SeenCache, str], set[Hashable]] = {}
        self._watched: set[SeenCache] = set()
        self._changed: dict[Hashable, asyncio.Event] = {}
        self._newest: dict[SeenCache, int] = {}
        self._doubts: set[tuple[Hashable, SeenCache]] = set()

    def watch(self, cache: SeenCache) -> None:
        """Let deletions be recorded against this cache. To be called before the cache runs."""
        if cache in self._watched:
            return
        self._watched.add(cache)

        def on_change(old: Any, new: Any) -> None:
            object_key = (old if old is not None else new).key
            for key in self._deleting.get((cache, object_key), ()):
                if event := self._changed.get(key):
                    event.set()

        cache.add_handler(on_change)

    def wrote(self, key: Hashable, cache: SeenCache, resource_version: str | int) -> None:
        """Record a create, update or patch by the resourceVersion that the API server answered with."""
        version = int(resource_version)
        if version <= cache.resource_version:
            return
        pending = self._pending.setdefault(key, _Pending())
        pending.versions[cache] = max(version, pending.versions.get(cache, 0))

    def deleted(self, key: Hashable, cache: SeenCache, object_key: str, uid: str) -> None:
        """Record a deletion, made with the UID as its precondition."""
        if cache not in self._watched:
            raise ValueError("deletions can only be recorded for a cache given to watch()")
        if _deletion_seen(cache, object_key, uid):
            return
        self._pending.setdefault(key, _Pending()).deletions[(cache, object_key)] = uid
        self._deleting.setdefault((cache, object_key), set()).add(key)

    def doubt(self, key: Hashable, cache: SeenCache) -> None:
        """Record a write of which nobody knows whether it was done."""
        self._doubts.add((key, cache))

    def in_doubt(self, key: Hashable, cache: SeenCache) -> bool:
        """Whether the API server has to be asked before this cache is acted on."""
        return (key, cache) in self._doubts

    def dispel(self, key: Hashable, cache: SeenCache) -> None:
        """The server was asked, and what the cache must show is recorded."""
        self._doubts.discard((key, cache))

    def forget(self, key: Hashable) -> None:
        """Drop what is recorded for the key (its object is gone)."""
        self._doubts = {doubt for doubt in self._doubts if doubt[0] != key}
        pending = self._pending.pop(key, None)
        if pending is None:
            return
        for place in pending.deletions:
            self._unlink(place, key)
        if event := self._changed.get(key):
            event.set()

    def is_ready(self, key: Hashable) -> bool:
        """True when the caches show every write recorded for the key."""
        pending = self._pending.get(key)
        if pending is None:
            return True
        for cache, version in list(pending.versions.items()):
            if cache.resource_version >= version or self._went_back(cache):
                del pending.versions[cache]
        for place, uid in list(pending.deletions.items()):
            if _deletion_seen(*place, uid):
                del pending.deletions[place]
                self._unlink(place, key)
        if pending.versions or pending.deletions:
            return False
        del self._pending[key]
        return True

    async def ready(self, key: Hashable, timeout: float = 30.0) -> bool:
        """Wait until `is_ready`; False when the caches have not caught up after `timeout` seconds."""
        event = self._changed.setdefault(key, asyncio.Event())
        try:
            async with asyncio.timeout(timeout):
                while not self.is_ready(key):
                    pending = self._pending[key]
                    for cache, version in list(pending.versions.items()):
                        await cache.wait_for(version, timeout)
                    if pending.deletions:
                        event.clear()
                        if not self.is_ready(key):
                            await event.wait()
        except TimeoutError:
            return self.is_ready(key)
        finally:
            self._changed.pop(key, None)
        return True

    def _went_back(self, cache: SeenCache) -> bool:
        """The cache's version fell: etcd was restored from a backup, and versions from before mean nothing any more."""
        now = cache.resource_version
        before = self._newest.get(cache, 0)
        self._newest[cache] = max(before, now)
        return now < before

    def _unlink(self, place: tuple[SeenCache, str], key: Hashable) -> None:
        keys = self._deleting.get(place)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._deleting[place]


def _deletion_seen(cache: SeenCache, object_key: str, uid: str) -> bool:
    obj = cache.get(object_key)
    return obj is None or obj.metadata.uid != uid or obj.metadata.deletion_timestamp is not None
