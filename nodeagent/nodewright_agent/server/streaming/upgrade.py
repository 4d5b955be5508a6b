"""How a request becomes a session: the handshakes, the sessions that are open, and what they may cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from nodewright_agent.heap import Trimmer
from nodewright_agent.server.streaming import websocket
from nodewright_agent.server.streaming.wire import SocketWire, give_back, take_over

SPDY = "SPDY/3.1"
VERSION_HEADER = "X-Stream-Protocol-Version"


class Refused(Exception):
    """The request cannot become a session; ``response`` says why."""

    def __init__(self, status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers

    def response(self) -> web.Response:
        """The answer."""
        answer = web.Response(status=self.status, text=self.text + "\n")
        for name, value in self.headers:
            answer.headers.add(name, value)
        return answer


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of sessions, in seconds and pieces; the times are upstream's."""

    idle: float = 4 * 3600.0
    """Without a byte in either direction (streamingConnectionIdleTimeout)."""
    creation: float = 30.0
    """For a client to open all streams that it asked for."""
    finish: float = 300.0
    """For a client to read what is left, and close."""
    sessions: int = 1000


class Sessions:
    """All open sessions of one server."""

    def __init__(self, limits: Limits) -> None:
        """Take the bounds."""
        self.limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._trimmer = Trimmer()

    async def run(
        self,
        request: web.Request,
        headers: list[tuple[str, str]],
        session: Callable[[SocketWire], Coroutine[Any, Any, None]],
    ) -> web.StreamResponse:
        """Answer 101 and run the session until its end, or the client's. Raises Refused when there are too many."""
        if len(self._tasks) >= self.limits.sessions:
            raise Refused(429, "too many streaming sessions on this node", [("Retry-After", "10")])
        wire = take_over(request, headers, self.limits.idle)
        task = asyncio.create_task(session(wire))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._trimmer.busy()
        try:
            await asyncio.wait((task, wire.closed), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ConnectionError):
                raise error
        finally:
            task.cancel()  # the server stops; ``close`` waits for it
            response = give_back(request, wire)
        return response

    async def close(self) -> None:
        """End all sessions, and wait until what they had started is gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._trimmer.busy()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._trimmer.idle()


def spdy_answer(request: web.Request, supported: Sequence[str], default: str) -> tuple[str, list[tuple[str, str]]]:
    """The protocol that both sides speak, and the headers of the answer. Raises Refused."""
    if not (websocket.has(request, "Connection", "upgrade") and websocket.has(request, "Upgrade", SPDY.lower())):
        raise Refused(400, "unable to upgrade: missing upgrade headers in request")
    values = request.headers.getall(VERSION_HEADER, [])
    wanted = [word for value in values for part in value.split(",") if (word := part.strip())] or [default]
    protocol = next((name for name in wanted if name in supported), None)
    if protocol is None:
        text = (
            f"unable to upgrade: unable to negotiate protocol: client supports [{' '.join(wanted)}], "
            f"server accepts [{' '.join(supported)}]"
        )
        raise Refused(403, text, [("X-Accepted-Stream-Protocol-Versions", name) for name in supported])
    return protocol, [("Connection", "Upgrade"), ("Upgrade", SPDY), (VERSION_HEADER, protocol)]


def websocket_answer(request: web.Request, supported: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """The subprotocol (empty: the client names none) and the headers of the answer. Raises Refused."""
    try:
        protocol = websocket.choose(request, supported)
        return protocol, websocket.answer(request, protocol)
    except websocket.BadHandshake as error:
        raise Refused(400, str(error)) from None


async def alongside(reader: Coroutine[Any, Any, None], work: Callable[[], Awaitable[None]]) -> None:
    """Do the work while a connection is read; end it when the connection ends first, and the reading after it."""
    reading = asyncio.ensure_future(reader)
    working = asyncio.ensure_future(work())
    try:
        await asyncio.wait((reading, working), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, reading):
            task.cancel()
        await asyncio.wait((reading, working))
    for task in (working, reading):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
