"""ConfigMaps and Secrets by name: one watch per object however many Pods use it, as the Node authorizer demands.

An agent may only get, and list or watch by name, what a Pod bound to its node refers to. So a watch lives as long as
some Pod holds the object, and an immutable object needs none.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
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
_HEALTHY = 5.0  # seconds; a watch that ends sooner counts as a failure, or it would be opened again without end


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

    def hold(self, key: Key, listener: Callable[[], None], known: Value | None) -> None:
        """Watch an object and call `listener` after each change, until `release` with the same listener.

        `known` is what `read` gave just before; the watch begins there, so nothing in between is missed.
        """
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched(self._client, key, known)
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

    def __init__(self, client: Client, key: Key, known: Value | None) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._client = client
        self._key = key
        self._value = known
        self._since: str | None = _version(known)
        """The version to watch from, which bookmarks move on; None: not known, list first."""
        self.task = asyncio.create_task(self._run(), name=f"watch-{'/'.join(key)}")

    def offer(self, value: Value | None) -> None:
        """Take what somebody read; listeners hear of it if it is new."""
        changed = _version(value) != _version(self._value)
        self._value = value
        if changed:
            for listener in tuple(self.listeners):
                listener()

    async def _run(self) -> None:
        delay = _BACKOFF[0]
        now = asyncio.get_running_loop().time
        while self._value is None or not self._value.immutable:
            started, listed = now(), self._since is None
            try:
                if listed:
                    await self._list()
                await self._follow()
                if now() - started >= _HEALTHY:
                    delay = _BACKOFF[0]
                    continue
            except Gone:
                self._since = None
                if not listed:
                    continue
            except ApiError as error:
                self._since = None
                log.warning("cannot watch an object that a pod uses; trying again",
                            extra={"object": "/".join(self._key), "error": str(error)})  # fmt: skip
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, _BACKOFF[1])

    async def _list(self) -> None:
        """Read the object through a list, whose version is of now.

        The object's own is of its last change: with etcd's history compacted, no watch can begin there any more.
        """
        kind, namespace, name = self._key
        resource, struct = _RESOURCES[kind]
        found: Any = await self._client.list(
            resource, namespace, type=struct, field_selector=f"metadata.name={name}"
        )  # fmt: skip
        self._since = found.resource_version
        self.offer(found.items[0] if found.items else None)

    async def _follow(self) -> None:
        """Watch from the known version until the server ends the watch, or the object can never change again.

        An absent object is watched without a version: if it was made in between, the watch begins with it.
        """
        kind, namespace, name = self._key
        resource, struct = _RESOURCES[kind]
        events: Any = self._client.watch(
            resource, namespace, type=struct, field_selector=f"metadata.name={name}",
            resource_version=self._since or "", idle_timeout=_IDLE,
        )  # fmt: skip
        async with aclosing(events):
            async for event in events:
                self._since = event.resource_version or self._since
                if event.type in ("ADDED", "MODIFIED"):
                    self.offer(event.object)
                    if event.object.immutable:
                        return
                elif event.type == "DELETED":
                    self.offer(None)


def _version(value: Value | None) -> str:
    return value.metadata.resource_version if value is not None else ""
