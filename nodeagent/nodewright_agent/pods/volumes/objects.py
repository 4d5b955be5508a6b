"""ConfigMaps and Secrets by name: one watch per object however many Pods use it, as the Node authorizer demands.

An agent may only get, and list or watch by name, what a Pod bound to its node refers to. So a watch lives as long as some
Pod holds the object, and an immutable object needs none.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Literal

from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, Gone, NotFound
from nodewright.kube.objects import ConfigMap, Secret
from nodewright.kube.resources import CONFIGMAPS, SECRETS

log = logging.getLogger(__name__)

Kind = Literal["configmap", "secret"]
Key = tuple[Kind, str, str]
Value = ConfigMap | Secret

_RESOURCES = {"configmap": (CONFIGMAPS, ConfigMap), "secret": (SECRETS, Secret)}
_IDLE = 180.0  # seconds; bookmarks come about once a minute, so silence this long is a dead connection
_BACKOFF = (0.8, 30.0)


class ObjectCache:
    """Shared, reference-counted single-object watches."""

    def __init__(self, client: Client) -> None:
        """Use a client; nothing runs until something is held."""
        self._client = client
        self._watched: dict[Key, _Watched] = {}

    async def read(self, kind: Kind, namespace: str, name: str) -> Value | None:
        """The newest version, straight from the API server; None when it does not exist."""
        resource, struct = _RESOURCES[kind]
        try:
            found: Any = await self._client.get(resource, name, namespace, type=struct)
        except NotFound:
            return None
        watched = self._watched.get((kind, namespace, name))
        if watched is not None:
            watched.offer(found)
        return found  # type: ignore[no-any-return]

    def hold(self, key: Key, listener: Callable[[], None]) -> None:
        """Watch an object and call `listener` after each change, until `release` with the same listener."""
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched(self._client, key)
        watched.listeners.append(listener)

    def release(self, key: Key, listener: Callable[[], None]) -> None:
        """Give an object up; the last one to do so ends the watch."""
        watched = self._watched[key]
        watched.listeners.remove(listener)
        if not watched.listeners:
            del self._watched[key]
            watched.task.cancel()

    @property
    def watching(self) -> frozenset[Key]:
        """The objects that are held now."""
        return frozenset(self._watched)

    async def close(self) -> None:
        """End all watches."""
        tasks = [watched.task for watched in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Watched:
    """One object: its last seen version, and the task that follows it."""

    def __init__(self, client: Client, key: Key) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._client = client
        self._key = key
        self._version: str | None = None  # resourceVersion last told to listeners, "" for "does not exist"
        self.task = asyncio.create_task(self._run(), name=f"watch-{'/'.join(key)}")

    def offer(self, value: Value | None) -> None:
        """Take what somebody read; listeners hear of it if it is new."""
        version = value.metadata.resource_version if value is not None else ""
        changed = self._version is not None and version != self._version
        self._version = version
        if changed:
            for listener in tuple(self.listeners):
                listener()

    async def _run(self) -> None:
        kind, namespace, name = self._key
        delay = _BACKOFF[0]
        while True:
            try:
                if await self._follow(kind, namespace, name):
                    return
                delay = _BACKOFF[0]
                continue
            except Gone:
                continue  # read it again at once
            except ApiError as error:
                log.warning("cannot watch an object that a pod uses; trying again",
                            extra={"object": "/".join(self._key), "error": str(error)})  # fmt: skip
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, _BACKOFF[1])

    async def _follow(self, kind: Kind, namespace: str, name: str) -> bool:
        """Read the object, then watch it from there until the watch ends; True when it can never change again.

        An absent object is watched without a version: if it is made in between, the watch begins with it.
        """
        resource, struct = _RESOURCES[kind]
        try:
            found: Any = await self._client.get(resource, name, namespace, type=struct)
        except NotFound:
            found = None
        self.offer(found)
        if found is not None and found.immutable:
            return True
        version = found.metadata.resource_version if found is not None else ""
        events: Any = self._client.watch(
            resource, namespace, type=struct, field_selector=f"metadata.name={name}", resource_version=version,
            idle_timeout=_IDLE,
        )  # fmt: skip
        async for event in events:
            if event.type in ("ADDED", "MODIFIED"):
                self.offer(event.object)
                if event.object.immutable:
                    return True
            elif event.type == "DELETED":
                self.offer(None)
        return False
