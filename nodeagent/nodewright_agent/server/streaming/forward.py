"""Streams that the runtime serves itself: the client's upgrade is repeated to its URL, and the bytes go both ways.

As kubelet does it: whatever the two speak (SPDY/3.1, WebSocket), this side does not look into it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from nodewright_agent.runtime.tasks import tasks
from nodewright_agent.server.streaming.backend import StreamError
from nodewright_agent.server.streaming.upgrade import Refused, Sessions
from nodewright_agent.server.streaming.wire import SocketWire

_PASSED = (
    "Connection",
    "Upgrade",
    "X-Stream-Protocol-Version",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Origin",
)
_PATIENCE = 30.0
"""Seconds for the runtime to answer the upgrade (kubelet's streamCreationTimeout)."""
_CHUNK, _MOST = 64 << 10, 64 << 10


@dataclass(slots=True)
class Answer:
    """The runtime's answer to the upgrade."""

    status: int
    reason: str
    headers: list[tuple[str, str]]


async def forward(sessions: Sessions, request: web.Request, url: str) -> web.StreamResponse:
    """Serve a session by the server at ``url``. Raises Refused with its answer where it does not upgrade."""
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await _connect(URL(url))
    except (OSError, StreamError) as error:
        raise Refused(500, f"the runtime's streaming server cannot be reached: {error}") from None
    try:
        async with asyncio.timeout(_PATIENCE):
            writer.write(_request(request, URL(url)))
            answer = await _answer(reader)
            if answer.status != 101:
                text = (await reader.read(_MOST)).decode(errors="replace").strip()
                # Only errors are passed on: there is nothing to go to where it points elsewhere.
                raise Refused(answer.status if answer.status >= 400 else 502, text or answer.reason)
        return await sessions.run(request, answer.headers, lambda wire: _pumped(wire, reader, writer))
    except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError) as error:
        raise Refused(500, f"the runtime's streaming server gave no answer: {error}") from None
    finally:
        writer.close()


async def _connect(url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.scheme != "http" or url.host is None:
        raise StreamError(f"it is told to be {url.scheme}://{url.host}: only http is spoken with it")  # no token
    return await asyncio.open_connection(url.host, url.port, limit=_MOST)


def _request(request: web.Request, url: URL) -> bytes:
    lines = [f"{request.method} {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_subcomponent}:{url.port}"]
    lines += [f"{name}: {value}" for name in _PASSED for value in request.headers.getall(name, [])]
    if request.method == "POST":
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _answer(reader: asyncio.StreamReader) -> Answer:
    """Read the head. Raises ValueError for what is no HTTP, asyncio.IncompleteReadError."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        raise ValueError("its answer has no end") from None
    first, *rest = head.split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise ValueError(f"it speaks no HTTP: {first[:100]!r}")
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in rest if line)]
    return Answer(int(words[1]), words[2] if len(words) > 2 else "", headers)


async def _pumped(wire: SocketWire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until either side ends."""

    async def there() -> None:
        while data := await wire.read():
            writer.write(data)
            await writer.drain()

    async def back() -> None:
        while data := await reader.read(_CHUNK):
            await wire.write(data)

    async with tasks() as start:
        await asyncio.wait([start(there()), start(back())], return_when=asyncio.FIRST_COMPLETED)
