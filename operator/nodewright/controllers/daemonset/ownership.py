"""Adopting and releasing pods and revisions: the writes that `claims` decides on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from nodewright.controllers.daemonset.claims import Owned, adoption_patch, claim, release_patch
from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import DaemonSet, Pod
from nodewright.framework.consistency import ConsistencyGuard
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import Conflict, Invalid, NotFound
from nodewright.kube.objects import PartialObject
from nodewright.kube.resources import PODS, Resource

log = logging.getLogger(__name__)

O = TypeVar("O", bound=Owned)  # noqa: E741


class StaleOwner(Conflict):
    """The DaemonSet that the cache shows is not the one that exists; nothing may be adopted for it."""

    def __init__(self, text: str) -> None:
        """As a Conflict that the server could have answered: the watch brings what is so, and then all goes on."""
        super().__init__(409, "Conflict", text)


class Ownership:
    """Claims objects of one resource for DaemonSets."""

    def __init__(self, client: Client, kind: Kind, guard: ConsistencyGuard) -> None:
        """`guard` learns of every write."""
        self._client = client
        self._kind = kind
        self._guard = guard

    async def claim(
        self,
        ds: DaemonSet,
        candidates: Iterable[O],
        resource: Resource,
        cache: WatchCache[O],
        type: type[O],
        others: Sequence[DaemonSet] = (),
    ) -> list[O]:
        """Adopt and release what is to be, and give the objects that belong to the DaemonSet now.

        `others` as for `claims.claim`.
        """
        claimed = claim(ds, candidates, others)
        mine = list(claimed.mine)
        if claimed.adopt:
            await self._check_alive(ds)
        for obj in claimed.adopt:
            meta = obj.metadata
            patch = adoption_patch(self._kind.resource, ds, meta.uid)
            try:
                adopted = await self._client.patch(
                    resource, meta.name, patch, meta.namespace, type=type, kind=PatchType.STRATEGIC
                )
            except NotFound:
                continue
            self._guard.wrote(ds.key, cache, adopted.metadata.resource_version)
            mine.append(adopted)
            log.info("adopted", extra={resource.kind.lower(): meta.name})
        for obj in claimed.release:
            meta = obj.metadata
            try:
                released = await self._client.patch(
                    resource,
                    meta.name,
                    release_patch(ds, meta.uid),
                    meta.namespace,
                    type=PartialObject,
                    kind=PatchType.STRATEGIC,
                )
            except (NotFound, Invalid):
                continue  # gone, or released by someone else: it is not ours in any case
            self._guard.wrote(ds.key, cache, released.metadata.resource_version)
            log.info("released", extra={resource.kind.lower(): meta.name})
        return mine

    async def look_again(self, ds: DaemonSet, pods: WatchCache[Pod], mine: Iterable[Pod]) -> None:
        """After writes of which nobody knows whether they were done: let the cache be waited for until it shows them.

        `mine` are the DaemonSet's pods as the cache has them, pullers among them. A pod that was made without our
        knowledge would else get a double; of one that is gone the budget of a rollout would not know.
        """
        found = await self._client.list(PODS, ds.metadata.namespace, type=PartialObject)
        there = {item.metadata.uid for item in found.items}
        versions = [
            int(item.metadata.resource_version)
            for item in found.items
            if any(ref.uid == ds.metadata.uid for ref in item.metadata.owner_references)
        ]
        self._guard.wrote(ds.key, pods, max(versions, default=0))
        for pod in mine:
            if pod.metadata.uid not in there:
                self._guard.deleted(ds.key, pods, pod.key, pod.metadata.uid)
        self._guard.dispel(ds.key, pods)
        log.info("looked again after writes without an answer", extra={"pods": len(versions)})

    async def _check_alive(self, ds: DaemonSet) -> None:
        """Ask the API server itself: a cache may show a DaemonSet that was deleted, or made anew under its name."""
        try:
            live = await self._client.get(
                self._kind.resource, ds.metadata.name, ds.metadata.namespace, type=PartialObject
            )
        except NotFound:
            raise StaleOwner(f"{ds.key} is gone, nothing is adopted for it") from None
        if live.metadata.uid != ds.metadata.uid:
            raise StaleOwner(f"{ds.key} was made anew (uid {live.metadata.uid}), nothing is adopted for the old one")
        if live.metadata.deletion_timestamp is not None:
            raise StaleOwner(f"{ds.key} is being deleted, nothing is adopted for it")
