"""What a scheduler follows besides Pods and nodes: namespaces, owners of Pods, budgets, and what is behind volumes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.resources import (
    APPS_REPLICASETS,
    APPS_STATEFULSETS,
    NAMESPACES,
    PODDISRUPTIONBUDGETS,
    REPLICATIONCONTROLLERS,
    SERVICES,
    Resource,
)

from .core import SchedulerCore
from .storage_watch import StorageWatch, load_storage
from .world_objects import DisruptionBudget, Namespace, SelectorOwner, Service

T = TypeVar("T")
Handler = Callable[[T | None, T | None], None]

OWNERS = (APPS_REPLICASETS, APPS_STATEFULSETS, REPLICATIONCONTROLLERS)


class Surroundings:
    """Keeps a core's picture of all that up to date, while `run` runs."""

    def __init__(self, client: Client, core: SchedulerCore) -> None:
        self._client = client
        self._storage = StorageWatch(client, core.happened, core.state)
        self._caches: list[WatchCache[Any]] = [
            self._cache(NAMESPACES, Namespace, core.on_namespace),
            self._cache(SERVICES, Service, core.on_service),
            self._cache(PODDISRUPTIONBUDGETS, DisruptionBudget, core.on_budget),
            *(
                self._cache(owner, SelectorOwner, functools.partial(core.on_owner, (owner.api_version, owner.kind)))
                for owner in OWNERS
            ),
        ]

    @property
    def has_synced(self) -> bool:
        """Whether all that exists is known."""
        return self._storage.has_synced and all(cache.has_synced for cache in self._caches)

    async def wait_synced(self) -> None:
        """Wait until all that exists is known."""
        await self._storage.wait_synced()
        for cache in self._caches:
            await cache.wait_synced()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._storage.run())
            for cache in self._caches:
                group.create_task(cache.run())

    def _cache(self, resource: Resource, kind: type[T], handler: Handler[T]) -> WatchCache[T]:
        cache = WatchCache(self._client, resource, type=kind, name=f"scheduler-{resource.plural}")
        cache.add_handler(handler)
        return cache


async def load_surroundings(client: Client, core: SchedulerCore) -> None:
    """Read all of it once, for a picture that is not followed. Raises ApiError."""

    async def load(resource: Resource, kind: type[T], handler: Handler[T]) -> None:
        for item in (await client.list(resource, type=kind)).items:
            handler(None, item)

    await asyncio.gather(
        load(NAMESPACES, Namespace, core.on_namespace),
        load(SERVICES, Service, core.on_service),
        load(PODDISRUPTIONBUDGETS, DisruptionBudget, core.on_budget),
        *(load(o, SelectorOwner, functools.partial(core.on_owner, (o.api_version, o.kind))) for o in OWNERS),
        load_storage(client, core.state.storage),
    )
