"""A Client that answers what a test has prepared, for code that posts to the API."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from nodewright.kube.errors import ApiError, Conflict, NotFound, ServerUnavailable


def cut() -> ServerUnavailable:
    """No answer: who knows what was done."""
    return ServerUnavailable(0, "ServerUnavailable", "the connection broke")


def refused(status: int, message: str = "no") -> ApiError:
    """An answer with an error status."""
    kinds: dict[int, type[ApiError]] = {404: NotFound, 409: Conflict}
    kind = kinds.get(status, ServerUnavailable if status >= 500 else ApiError)
    return kind(status, "", message)


class ScriptedClient:
    """Writes and reads take their answers from `writes` and `reads`, in order; an exception is raised."""

    def __init__(self, *, writes: Any = (), reads: Any = ()) -> None:
        self.writes, self.reads = deque(writes), deque(reads)
        self.written: list[Any] = []
        self.looked = 0

    async def _take(self, answers: deque[Any], default: Any) -> Any:
        await asyncio.sleep(0)
        answer = answers.popleft() if answers else default
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def request(self, method: str, path: str, *, body: bytes, **_: Any) -> bytes:
        self.written.append((method, path, msgspec.json.decode(body)))
        return await self._take(self.writes, b"{}")

    async def patch(self, _res: Any, name: str, body: Any, *_args: Any, **_kw: Any) -> Any:
        self.written.append(("PATCH", name, body))
        return await self._take(self.writes, b"{}")

    async def get(self, _res: Any, name: str, *_args: Any, **_kw: Any) -> Any:
        self.looked += 1
        return await self._take(self.reads, NotFound(404, "NotFound", f"{name} not found"))
