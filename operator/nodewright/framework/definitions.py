"""Waiting for CustomResourceDefinitions that are applied at the same time as this process starts (helm install)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from nodewright.kube.api.base import KubeStruct, NullableList, no_nulls
from nodewright.kube.api.meta import Condition, Object
from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.conditions import is_true
from nodewright.kube.errors import ApiError, NotFound
from nodewright.kube.resources import CRDS, Resource

log = logging.getLogger(__name__)


class DefinitionStatus(KubeStruct):
    """The part of a definition's status that tells whether it is served."""

    conditions: NullableList[Condition] = msgspec.field(default_factory=list)  # null in a definition just made

    def __post_init__(self) -> None:
        """Readers see lists only."""
        no_nulls(self, "conditions")


class Definition(Object):
    """A CustomResourceDefinition."""

    status: DefinitionStatus = msgspec.field(default_factory=DefinitionStatus)


class Definitions:
    """Knows which of the kinds that a process needs are not served yet."""

    def __init__(self, client: Client, kinds: Iterable[Resource]) -> None:
        """`kinds` are custom resources; the built-in ones are always there."""
        self._client = client
        self.missing: set[Resource] = set(kinds)

    def names(self) -> list[str]:
        """Names of the definitions that are missing, as kubectl shows them."""
        return sorted(f"{kind.plural}.{kind.group}" for kind in self.missing)

    async def wait(self) -> None:
        """Return once all kinds are served. Costs one small list per kind where they are there already."""
        await self._look()
        if not self.missing:
            return
        log.info("waiting for CustomResourceDefinitions", extra={"missing": ",".join(self.names())})
        changed = asyncio.Event()
        cache: WatchCache[Definition] = WatchCache(self._client, CRDS, type=Definition)
        cache.add_handler(lambda _old, _new: changed.set())
        task = asyncio.create_task(cache.run(), name="definitions")
        backoff = Backoff(0.05, 1.0)
        try:
            while self.missing:
                changed.clear()
                if not any(self._is_established(cache, kind) for kind in self.missing):
                    await changed.wait()
                    continue
                await self._look()
                if self.missing:
                    # Established a moment before it is served everywhere: several API servers, or a busy one.
                    await asyncio.sleep(backoff.next())
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        log.info("all CustomResourceDefinitions are served")

    async def _look(self) -> None:
        for kind in list(self.missing):
            try:
                await self._client.list(kind, limit=1)
            except NotFound:
                continue
            except ApiError as error:
                # Not for us to judge: the cache of that kind meets the same error, reports it and retries.
                log.debug("cannot tell whether %s is served: %s", kind.plural, error)
            self.missing.discard(kind)

    @staticmethod
    def _is_established(cache: WatchCache[Definition], kind: Resource) -> bool:
        found = cache.get(f"{kind.plural}.{kind.group}")
        return found is not None and is_true(found.status.conditions, "Established")
