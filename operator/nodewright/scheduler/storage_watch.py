"""Following what is behind volumes: seven small watches that feed `StorageState`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.resources import (
    CSIDRIVERS,
    CSINODES,
    CSISTORAGECAPACITIES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    STORAGECLASSES,
    VOLUMEATTACHMENTS,
    Resource,
)

from . import storage_events
from .events import Event
from .state import ClusterState
from .state.storage import StorageState
from .storage_objects import (
    Claim,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    StorageClass,
    VolumeAttachment,
)

T = TypeVar("T")

# How a change of one object is taken in, and what it amounts to for waiting Pods.
Take = Callable[[T | None, T | None], None]
Judge = Callable[[T | None, T | None], Event]


class StorageWatch:
    """Keeps `state.storage` up to date. `on_event` is told what may let waiting Pods through, after the change.

    The caches hold projections of a few fields, shared with the state: a cluster without volumes costs seven idle
    watches.
    """

    def __init__(self, client: Client, on_event: Callable[[Event], None], state: ClusterState) -> None:
        self._client = client
        self._on_event = on_event
        storage = state.storage
        storage.on_released = lambda: on_event(Event.VOLUME | Event.CLAIM)
        self._caches: list[WatchCache[Any]] = [
            self._cache(STORAGECLASSES, StorageClass, storage.on_class, storage_events.class_events),
            self._cache(PERSISTENTVOLUMES, PersistentVolume, storage.on_volume, storage_events.volume_events),
            self._cache(PERSISTENTVOLUMECLAIMS, Claim, storage.on_claim, storage_events.claim_events),
            self._cache(CSINODES, CSINode, storage.on_csi_node, storage_events.csi_node_events),
            self._cache(CSIDRIVERS, CSIDriver, storage.on_csi_driver, storage_events.csi_driver_events),
            self._cache(CSISTORAGECAPACITIES, CSIStorageCapacity, storage.on_capacity, storage_events.capacity_events),
            self._cache(VOLUMEATTACHMENTS, VolumeAttachment, storage.on_attachment, storage_events.attachment_events),
        ]

    @property
    def has_synced(self) -> bool:
        """Whether all that exists is known."""
        return all(cache.has_synced for cache in self._caches)

    async def wait_synced(self) -> None:
        """Wait until all that exists is known."""
        for cache in self._caches:
            await cache.wait_synced()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for cache in self._caches:
                group.create_task(cache.run())

    def _cache(self, resource: Resource, kind: type[T], take: Take[T], judge: Judge[T]) -> WatchCache[T]:
        cache = WatchCache(self._client, resource, type=kind, name=f"scheduler-{resource.plural}")

        def on_change(old: T | None, new: T | None) -> None:
            take(old, new)
            if kinds := judge(old, new):
                self._on_event(kinds)

        cache.add_handler(on_change)
        return cache


async def load_storage(client: Client, storage: StorageState) -> None:
    """Read all storage objects once, for a picture that is not followed (`explain`, `simulate`). Raises ApiError."""

    async def load(resource: Resource, kind: type[T], take: Take[T]) -> None:
        items: Iterable[T] = (await client.list(resource, type=kind)).items
        for item in items:
            take(None, item)

    await asyncio.gather(
        load(STORAGECLASSES, StorageClass, storage.on_class),
        load(PERSISTENTVOLUMES, PersistentVolume, storage.on_volume),
        load(PERSISTENTVOLUMECLAIMS, Claim, storage.on_claim),
        load(CSINODES, CSINode, storage.on_csi_node),
        load(CSIDRIVERS, CSIDriver, storage.on_csi_driver),
        load(CSISTORAGECAPACITIES, CSIStorageCapacity, storage.on_capacity),
        load(VOLUMEATTACHMENTS, VolumeAttachment, storage.on_attachment),
    )
