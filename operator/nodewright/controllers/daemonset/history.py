"""Keeping the ControllerRevisions: the writes that `revisions` decides on."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set

from nodewright.controllers.daemonset import revisions
from nodewright.controllers.daemonset.claims import controller
from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Pod, Revision
from nodewright.framework.consistency import ConsistencyGuard
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.errors import AlreadyExists, NotFound
from nodewright.kube.objects import PartialObject
from nodewright.kube.resources import CONTROLLERREVISIONS, PODS

log = logging.getLogger(__name__)


class NotYet(Exception):
    """The history can't be settled now; a change that is under way will bring the DaemonSet back."""


class HistoryKeeper:
    """Makes sure that exactly one revision holds the current template, with the highest number."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        guard: ConsistencyGuard,
        daemonsets: WatchCache[DaemonSet],
        cache: WatchCache[Revision],
        pods: WatchCache[Pod],
    ) -> None:
        """`guard` learns of every write."""
        self._client = client
        self._kind = kind
        self._guard = guard
        self._daemonsets = daemonsets
        self._cache = cache
        self._pods = pods

    async def current(
        self, ds: DaemonSet, mine: Sequence[Revision], pods: Sequence[Pod]
    ) -> tuple[Revision, list[Revision]]:
        """The current revision (made, renumbered or freed of doubles where needed) and the old ones."""
        labelled = [await self._labelled(ds, revision) for revision in mine]
        history = revisions.split(ds, labelled)
        if not history.current:
            return await self._create(ds, history.next_number), history.old
        keep, *doubles = history.current
        for double in doubles:
            await self._merge(ds, keep, double, pods)
        if keep.revision < history.next_number:
            keep = await self._patch(ds, keep, {"revision": history.next_number})
        return keep, history.old

    async def clean(self, ds: DaemonSet, old: Sequence[Revision], pods: Sequence[Pod], needed: Set[str]) -> None:
        """Delete the revisions beyond revisionHistoryLimit that no pod needs; `needed` are hashes to keep as well."""
        live = revisions.live_hashes(pod.metadata.labels for pod in pods) | needed
        for revision in revisions.expired(old, ds.spec.revision_history_limit, live):
            await self._delete(ds, revision)

    async def _labelled(self, ds: DaemonSet, revision: Revision) -> Revision:
        if HASH_LABEL in revision.metadata.labels:
            return revision
        return await self._patch(ds, revision, {"metadata": {"labels": {HASH_LABEL: revision.metadata.name}}})

    async def _create(self, ds: DaemonSet, number: int) -> Revision:
        body = revisions.new_revision(self._kind.resource, ds, number)
        try:
            made = await self._client.create(CONTROLLERREVISIONS, body, ds.metadata.namespace, type=Revision)
        except AlreadyExists:
            return await self._collision(ds, body["metadata"]["name"])
        self._guard.wrote(ds.key, self._cache, made.metadata.resource_version)
        log.info("new revision", extra={"revision": made.metadata.name, "number": number})
        return made

    async def _collision(self, ds: DaemonSet, name: str) -> Revision:
        """The name is taken: by the same template (our cache is behind), or by another one (try the next name)."""
        namespace = ds.metadata.namespace
        existing = await self._client.get(CONTROLLERREVISIONS, name, namespace, type=Revision)
        owner = controller(existing.metadata)
        if revisions.holds_template(ds, existing) and owner is not None and owner.uid == ds.metadata.uid:
            self._guard.wrote(ds.key, self._cache, existing.metadata.resource_version)
            return existing
        live = await self._client.get(self._kind.resource, ds.metadata.name, namespace, type=DaemonSet)
        if live.metadata.uid == ds.metadata.uid and live.status.collision_count == ds.status.collision_count:
            # With the resourceVersion in it, the patch is refused where someone else counted meanwhile.
            patch = {
                "metadata": {"resourceVersion": live.metadata.resource_version},
                "status": {"collisionCount": (live.status.collision_count or 0) + 1},
            }
            counted = await self._client.patch(
                self._kind.resource, ds.metadata.name, patch, namespace, type=PartialObject, subresource="status"
            )
            self._guard.wrote(ds.key, self._daemonsets, counted.metadata.resource_version)
            log.info("revision name collision", extra={"revision": name})
        raise NotYet(f"the revision name {name} is taken by another template")

    async def _merge(self, ds: DaemonSet, keep: Revision, double: Revision, pods: Sequence[Pod]) -> None:
        """Let the pods of a double revision carry the kept one's hash, then delete the double."""
        for pod in pods:
            if pod.metadata.labels.get(HASH_LABEL) != double.hash:
                continue
            patch = {"metadata": {"labels": {HASH_LABEL: keep.hash}, "uid": pod.metadata.uid}}
            try:
                done = await self._client.patch(
                    PODS, pod.metadata.name, patch, pod.metadata.namespace, type=PartialObject
                )
            except NotFound:
                continue
            self._guard.wrote(ds.key, self._pods, done.metadata.resource_version)
        await self._delete(ds, double)

    async def _patch(self, ds: DaemonSet, revision: Revision, patch: dict[str, object]) -> Revision:
        meta = revision.metadata
        done = await self._client.patch(CONTROLLERREVISIONS, meta.name, patch, meta.namespace, type=Revision)
        self._guard.wrote(ds.key, self._cache, done.metadata.resource_version)
        return done

    async def _delete(self, ds: DaemonSet, revision: Revision) -> None:
        """Only as it was seen: one that somebody has let go or renumbered meanwhile is looked at again (Conflict)."""
        meta = revision.metadata
        uid, seen = meta.uid, meta.resource_version
        try:
            await self._client.delete(CONTROLLERREVISIONS, meta.name, meta.namespace, uid=uid, resource_version=seen)
        except NotFound:
            return
        self._guard.deleted(ds.key, self._cache, revision.key, uid)
