"""Creating and deleting many objects at a high rate: as `Client` does it, at a third of its CPU.

Of an object that is created or deleted only the metadata is answered, which spares the API server writing all of it.
"""

from __future__ import annotations

from typing import Any

from nodewright.kube.client import Client
from nodewright.kube.codec import decode, encode
from nodewright.kube.errors import ServerUnavailable, from_response
from nodewright.kube.objects import PartialObject
from nodewright.kube.quickpost import NO_ANSWER, NOT_SENT, QuickPoster
from nodewright.kube.resources import Resource

# Enough to keep an API server busy; each connection costs memory on both sides.
CONNECTIONS = 32
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
# Nothing was done, and `Client` knows how to go on: through a proxy, with new credentials, after a pause.
_FOR_CLIENT = frozenset((NOT_SENT, 401, 429))


class QuickWriter:
    """Writes of one process. All methods raise ApiError as those of `Client` do."""

    def __init__(self, client: Client, connections: int = CONNECTIONS) -> None:
        """Nothing is sent; the connections close with the client."""
        self._client = client
        self._connections = connections
        self._quick: QuickPoster | None = None

    async def create(self, res: Resource, obj: dict[str, Any], namespace: str) -> PartialObject:
        """Create an object and give its metadata."""
        path = res.path(namespace)
        return decode(await self._write("POST", path, encode(obj, res)), PartialObject, f"POST {path}")

    async def delete(self, res: Resource, name: str, namespace: str, *, uid: str) -> None:
        """Delete the object with this UID; Conflict where another one has its name by now."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        await self._write("DELETE", res.path(namespace, name), encode(options))

    async def _write(self, method: str, path: str, body: bytes) -> bytes:
        if self._quick is None:
            self._quick = self._client.quick_poster(self._connections)
        answer = await self._quick.ask(method, path, body, accept=_METADATA)
        if 200 <= answer.status < 300:
            return answer.body
        if answer.status in _FOR_CLIENT:
            return await self._client.request(method, path, body=body, accept=_METADATA)
        if answer.status == NO_ANSWER:
            raise ServerUnavailable(0, "ServerUnavailable", f"{method} {path}: no answer; it may have been done")
        raise from_response(answer.status, answer.body, None, f"{method} {path}")
