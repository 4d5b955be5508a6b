"""The API client: verbs on resources, typed by msgspec structs or plain dicts."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any, Self

import msgspec

from nodewright.kube.codec import (
    BadObject,
    LineSplitter,
    ObjectList,
    T,
    WatchEvent,
    decode,
    decode_line,
    decode_page,
    encode,
    meta_of,
)
from nodewright.kube.config import Config
from nodewright.kube.errors import Gone
from nodewright.kube.quickpost import QuickPoster
from nodewright.kube.resources import Resource
from nodewright.kube.transport import Transport

__all__ = ["Client", "ObjectList", "PatchType", "WatchEvent"]

_JSON = "application/json"


class PatchType(StrEnum):
    """How the body of a patch is meant; the value is its media type."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"  # JSON is YAML


class Client:
    """Talks to one API server. Every method raises ApiError (see nodewright.kube.errors) on failure.

    Answers 429, and 5xx with Retry-After, are retried inside; reads also after connection failures. Writes are not,
    since they may have been carried out. `type` chooses what objects are decoded into; structs only keep their fields.
    """

    def __init__(
        self,
        config: Config,
        *,
        user_agent: str = "nodewright",
        qps: float | None = None,
        burst: int = 0,
        max_connections: int = 100,
    ) -> None:
        """Take the connection settings; `qps` None means that only the server limits us."""
        self.config = config
        self._user_agent = user_agent
        self._quick: list[QuickPoster] = []
        self._http = Transport(
            config, user_agent=user_agent, qps=qps, burst=burst or int(qps or 1), max_connections=max_connections
        )

    async def __aenter__(self) -> Self:
        """Use as a context that closes the connections."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close all connections; requests under way fail."""
        for quick in self._quick:
            await quick.close()
        await self._http.close()

    def quick_poster(self, connections: int) -> QuickPoster:
        """A way to the same server for many small writes; closed with this client, or before."""
        quick = QuickPoster(self.config, user_agent=self._user_agent, connections=connections)
        self._quick.append(quick)
        return quick

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: float | None = None,
        retry_busy: bool = True,
    ) -> bytes:
        """Send any request, and give the body of the answer.

        Without `retry_busy` an answer 429 is raised at once: for evictions it is what a disruption budget says.
        """
        return await self._http.request(
            method,
            path,
            params=params,
            body=body,
            content_type=content_type,
            accept=accept,
            timeout=timeout,
            retry_busy=retry_busy,
        )

    async def stream(
        self, path: str, *, params: dict[str, str] | None = None, idle_timeout: float | None = None
    ) -> AsyncIterator[bytes]:
        """Read a streaming answer, such as a followed log, chunk by chunk."""
        async with self._http.stream(path, params or {}, "*/*", idle_timeout) as content:
            async for chunk in content.iter_any():
                yield chunk

    async def get(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        type: type[T] = dict,  # type: ignore[assignment]
        subresource: str | None = None,
    ) -> T:
        """Read one object."""
        path = res.path(namespace, name, subresource)
        return decode(await self.request("GET", path), type, f"GET {path}")

    async def list(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        type: type[T] = dict,  # type: ignore[assignment]
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        resource_version: str | None = None,
        on_bad: BadObject | None = None,
    ) -> ObjectList[T]:
        """Read all objects, page by page; all pages show the state at one resourceVersion.

        `resource_version` "0" takes what the server has in its cache, None the newest. When the continue token expires
        on the way, all is read anew in one page, as client-go does. `on_bad` is told of objects that do not fit
        `type`, which are then left out; without it they raise BadResponse.
        """
        path = res.path(namespace)
        selectors = _selectors(label_selector, field_selector)
        params = dict(selectors)
        if resource_version is not None:
            params["resourceVersion"] = resource_version
        if limit:
            params["limit"] = str(limit)
        items: list[T] = []
        version = ""
        while True:
            try:
                body = await self.request("GET", path, params=params)
            except Gone:
                if "continue" not in params:
                    raise
                items, version, params = [], "", dict(selectors)
                continue
            page, meta = decode_page(body, type, f"GET {path}", on_bad)
            items.extend(page)
            version = version or meta.resource_version
            if not meta.continue_:
                return ObjectList(items, version)
            params = {**selectors, "limit": str(limit), "continue": meta.continue_}

    async def newest_version(self, res: Resource, namespace: str | None = None) -> str:
        """Ask for the newest resourceVersion that a list of this collection can have."""
        path = res.path(namespace)
        body = await self.request("GET", path, params={"limit": "1"})
        _, meta = decode_page(body, msgspec.Raw, f"GET {path}", None)
        return meta.resource_version

    async def watch(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        type: type[T] = dict,  # type: ignore[assignment]
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        timeout_seconds: int | None = None,
        idle_timeout: float | None = None,
        on_bad: BadObject | None = None,
    ) -> AsyncIterator[WatchEvent[T]]:
        """Follow changes from a resourceVersion on, until the server ends the watch (after 5 to 10 minutes by default).

        Bookmarks are asked for and passed on. Raises Gone when the version is too old (as a status or as an event),
        ServerUnavailable when the connection breaks or nothing at all comes for `idle_timeout` seconds.
        """
        params = _selectors(label_selector, field_selector)
        params["watch"] = "true"
        params["allowWatchBookmarks"] = "true"
        params["timeoutSeconds"] = str(timeout_seconds or random.randint(300, 600))
        if resource_version:
            params["resourceVersion"] = resource_version
        splitter = LineSplitter()
        async with self._http.stream(res.path(namespace), params, _JSON, idle_timeout) as content:
            async for chunk in content.iter_any():
                for line in splitter.feed(chunk):
                    event = decode_line(line, type, on_bad)
                    if event is not None:
                        yield event

    async def create(
        self,
        res: Resource,
        obj: Any,
        namespace: str | None = None,
        *,
        type: type[T] = dict,  # type: ignore[assignment]
        name: str | None = None,
        subresource: str | None = None,
    ) -> T:
        """Create an object, or post to a subresource such as `binding`; the namespace defaults to the object's own."""
        path = res.path(namespace or _namespace(res, obj), name, subresource)
        body = encode(obj, None if subresource else res)
        return decode(await self.request("POST", path, body=body), type, f"POST {path}")

    async def replace(
        self,
        res: Resource,
        obj: Any,
        name: str,
        namespace: str | None = None,
        *,
        type: type[T] = dict,  # type: ignore[assignment]
        subresource: str | None = None,
    ) -> T:
        """Replace a whole object; a resourceVersion in it makes the server refuse with Conflict if it has changed."""
        path = res.path(namespace or _namespace(res, obj), name, subresource)
        body = encode(obj, None if subresource not in (None, "status") else res)
        return decode(await self.request("PUT", path, body=body), type, f"PUT {path}")

    async def patch(
        self,
        res: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        type: type[T] = dict,  # type: ignore[assignment]
        kind: PatchType = PatchType.MERGE,
        subresource: str | None = None,
        field_manager: str | None = None,
        force: bool = False,
    ) -> T:
        """Change part of an object; `body` is a dict, a list of operations (JSON patch), a struct or bytes."""
        path = res.path(namespace, name, subresource)
        params = {}
        if field_manager:
            params["fieldManager"] = field_manager
        if force:
            params["force"] = "true"
        data = encode(body, res if kind is PatchType.APPLY else None)
        answer = await self.request("PATCH", path, params=params, body=data, content_type=kind.value)
        return decode(answer, type, f"PATCH {path}")

    async def apply(
        self,
        res: Resource,
        obj: Any,
        namespace: str | None = None,
        *,
        field_manager: str,
        force: bool = True,
        type: type[T] = dict,  # type: ignore[assignment]
        subresource: str | None = None,
    ) -> T:
        """Apply an object server-side: create it, or own and set the fields that it has."""
        own_namespace, name, _ = meta_of(msgspec.json.decode(obj) if isinstance(obj, bytes) else obj)
        namespace = namespace or (own_namespace if res.namespaced else None) or None
        return await self.patch(
            res,
            name,
            obj,
            namespace,
            type=type,
            kind=PatchType.APPLY,
            subresource=subresource,
            field_manager=field_manager,
            force=force,
        )

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation_policy: str | None = None,
    ) -> None:
        """Delete an object; with `uid` or `resource_version` only that very one (else Conflict)."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if present := {key: value for key, value in preconditions.items() if value is not None}:
            options["preconditions"] = present
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        await self.request("DELETE", res.path(namespace, name), body=encode(options))


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    params = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in params.items() if value}


def _namespace(res: Resource, obj: Any) -> str | None:
    if not res.namespaced or isinstance(obj, bytes):
        return None
    if isinstance(obj, dict) or hasattr(obj, "metadata"):
        return meta_of(obj)[0] or None
    return None
