"""Image garbage collection: which images go, by age and by the fill of their file system. ``choose`` is pure.

When an image was first seen and last used is kept on disk, so that a restart forgets neither.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from nodewright.kube.objects import ObjectReference
from nodewright_agent.runtime.images.errors import ImageError, ImageInUse, ImageNotFound
from nodewright_agent.runtime.images.fsutil import write_atomically
from nodewright_agent.runtime.images.model import Image

log = logging.getLogger(__name__)

PERIOD = 300.0
"""Seconds between two looks (upstream's ImageGCPeriod)."""


class Policy(msgspec.Struct, frozen=True):
    """When images are removed: percent of the file system that are used; ages in seconds."""

    high: int = 85
    """From here on images are removed, 100: never."""
    low: int = 80
    """... until it is at this."""
    minimum_age: float = 120.0
    maximum_age: float = 0.0
    """Unused for longer than this, an image goes anyway; 0: never."""


class Use(msgspec.Struct):
    """When an image was first seen and last used, in seconds since the epoch; 0: before anybody looked."""

    seen: float = 0.0
    used: float = 0.0


class Candidate(NamedTuple):
    """An image that may be removed."""

    id: str
    size: int
    use: Use


class Events(Protocol):
    """Posts events."""

    def event(self, ref: ObjectReference, type: str, reason: str, message: str) -> None:
        """Post one."""


class Store(Protocol):
    """What is needed of the image store."""

    def list(self) -> list[Image]:
        """All images."""

    def remove(self, ref: str) -> None:
        """Remove one by id."""


def aged(candidates: Iterable[Candidate], now: float, policy: Policy) -> list[Candidate]:
    """Those that nobody has used for longer than the maximum age; never used ones count from when they were seen."""
    if not policy.maximum_age:
        return []
    return [one for one in candidates if now - max(one.use.used, one.use.seen) > policy.maximum_age]


def choose(candidates: Iterable[Candidate], now: float, policy: Policy, need: float) -> list[Candidate]:
    """The images to remove for ``need`` bytes, the one that was used longest ago first; none that has just come."""
    chosen: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (one.use.used, one.use.seen)):
        if need <= 0:
            break
        if now - one.use.seen < policy.minimum_age:
            continue
        chosen.append(one)
        need -= one.size
    return chosen


class ImageCollector:
    """Collects the unused images of one store; the only one who writes the file of uses."""

    def __init__(
        self,
        store: Store,
        file: Path,
        in_use: Callable[[], set[str]],
        disk: Callable[[], tuple[int, int]],
        events: Events,
        node: ObjectReference,
        clock: Callable[[], float],
        collected: Counter[str],
    ) -> None:
        """``in_use`` gives ids and names of images that Pods have; ``disk`` bytes of capacity and what is available."""
        self.policy = Policy()
        self._store, self._file, self._in_use, self._disk = store, file, in_use, disk
        self._events, self._node, self._clock, self._collected = events, node, clock, collected
        self._uses: dict[str, Use] = self._load()
        self._first = not self._uses
        self._wake = asyncio.Event()
        self._busy = asyncio.Lock()

    def apply(self, policy: Policy) -> None:
        """Obey another policy, at once."""
        if policy != self.policy:
            self.policy = policy
            self._wake.set()

    async def run(self) -> None:
        """Collect every five minutes until cancelled."""
        failed = False
        while True:
            self._wake.clear()
            try:
                await self.collect()
            except (OSError, ImageError, CollectionFailed) as error:
                log.warning("image garbage collection: %s", error)
                if failed:  # upstream is silent about the first failure: usage may not be known yet
                    self._events.event(self._node, "Warning", "ImageGCFailed", str(error))
                failed = True
            else:
                failed = False
            try:
                async with asyncio.timeout(PERIOD):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def collect(self) -> None:
        """Remove what is too old, and what has to go for space. Raises ``CollectionFailed`` when it is not enough."""
        async with self._busy:
            now = self._clock()
            candidates = await self._candidates(now)
            old = aged(candidates, now, self.policy)
            await self._remove(old, "age")
            candidates = [one for one in candidates if one not in old]
            capacity, available = await asyncio.to_thread(self._disk)
            if capacity <= 0:
                text = f"invalid capacity {capacity} on image filesystem"
                self._events.event(self._node, "Warning", "InvalidDiskCapacity", text)
                raise CollectionFailed(text)
            percent = 100 - min(available, capacity) * 100 // capacity
            if percent < self.policy.high or self.policy.high >= 100:
                return
            need = capacity * (100 - self.policy.low) // 100 - available
            freed = await self._remove(choose(candidates, now, self.policy, need), "space")
            if freed < need:
                text = (
                    "Failed to garbage collect required amount of images. "
                    f"Attempted to free {need} bytes, but only found {freed} bytes eligible to free."
                )
                self._events.event(self._node, "Warning", "FreeDiskSpaceFailed", text)
                raise CollectionFailed(text)

    async def delete_unused(self) -> None:
        """Remove every image that may go: the node is short of disk."""
        async with self._busy:
            now = self._clock()
            chosen = choose(await self._candidates(now), now, self.policy, float("inf"))
            await self._remove(chosen, "space")

    async def _candidates(self, now: float) -> list[Candidate]:
        """Look at all images, note which are used now, and return the others."""
        used = self._in_use()
        images = await asyncio.to_thread(self._store.list)
        found, uses = [], {}
        for image in images:
            use = uses[image.id] = self._uses.get(image.id, Use(seen=0.0 if self._first else now))
            if image.id in used or not used.isdisjoint([*image.names, *image.digests]):
                use.used = now
            else:
                found.append(Candidate(image.id, image.size, use))
        self._uses, self._first = uses, False
        await asyncio.to_thread(self._save)
        return found

    async def _remove(self, chosen: Iterable[Candidate], reason: str) -> int:
        freed = 0
        for one in chosen:
            if one.id in self._in_use():
                continue  # a Pod has come for it meanwhile
            try:
                await asyncio.to_thread(self._store.remove, one.id)
            except (ImageInUse, ImageNotFound):
                continue  # by another node of this machine, which shares the store
            log.info("unused image removed", extra={"image": one.id, "bytes": one.size, "reason": reason})
            self._collected[reason] += 1
            self._uses.pop(one.id, None)
            freed += one.size
        return freed

    def _load(self) -> dict[str, Use]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Use])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("when images were used is forgotten: %s: %s", self._file, error)
            return {}

    def _save(self) -> None:
        try:
            write_atomically(self._file, msgspec.json.encode(self._uses))
        except OSError as error:
            log.warning("cannot note when images were used: %s", error)


class CollectionFailed(Exception):
    """Too little could be removed; the text says how much."""


def file_system(root: Path) -> tuple[int, int]:
    """Capacity and what is available of a path's file system, in bytes."""
    status = os.statvfs(root)
    return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


__all__ = ["CollectionFailed", "ImageCollector", "Policy", "Use", "aged", "choose", "file_system"]
