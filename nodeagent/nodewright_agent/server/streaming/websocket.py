"""A WebSocket of a client: the handshake, and messages over a wire; and bytes tunnelled in its messages."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import deque
from collections.abc import Sequence

from aiohttp import web

from nodewright_agent.server.streaming.wire import Wire
from nodewright_agent.server.streaming.wsframes import (
    ControlFrame,
    Decoder,
    Opcode,
    Piece,
    WebSocketError,
    close_payload,
    encode,
)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NORMAL = 1000
_TOGETHER = 256
"""Parts of messages, small ones perhaps, after which others have the loop."""


class BadHandshake(Exception):
    """The request cannot be upgraded; answered with 400."""


def has(request: web.BaseRequest, header: str, word: str) -> bool:
    """Whether a header that is a list has this word; the word in lower case."""
    return any(
        word == part.strip().lower() for value in request.headers.getall(header, []) for part in value.split(",")
    )


def is_websocket(request: web.BaseRequest) -> bool:
    """Whether the client asks for a WebSocket."""
    return has(request, "Connection", "upgrade") and has(request, "Upgrade", "websocket")


def offered(request: web.BaseRequest) -> list[str]:
    """The subprotocols that the client can speak, the best first."""
    values = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [word for value in values for part in value.split(",") if (word := part.strip())]


def choose(request: web.BaseRequest, supported: Sequence[str]) -> str:
    """The client's first subprotocol that we support; empty when it names none. Raises BadHandshake."""
    wanted = offered(request)
    if not wanted:
        return ""
    found = next((name for name in wanted if name in supported), None)
    if found is None:
        raise BadHandshake(f"unable to upgrade websocket connection: bad protocol: client supports {wanted}")
    return found


def answer(request: web.BaseRequest, protocol: str) -> list[tuple[str, str]]:
    """The headers of the answer. Raises BadHandshake."""
    key = request.headers.get("Sec-WebSocket-Key", "")
    try:
        fine = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        fine = False
    if request.method != "GET" or not fine or request.headers.get("Sec-WebSocket-Version") != "13":
        raise BadHandshake("unable to upgrade websocket connection: bad handshake")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    return [*headers, ("Sec-WebSocket-Protocol", protocol)] if protocol else headers


class WebSocket:
    """Messages over a wire. Pings are answered, and a close frame, as soon as they are read."""

    def __init__(self, wire: Wire) -> None:
        """Take the wire after the handshake."""
        self._wire = wire
        self._decoder = Decoder()
        self._pieces: deque[Piece] = deque()
        self._received = 0
        self._ended = False
        self._closing = False

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the connection has ended."""
        return self._wire.closed

    async def receive(self) -> Piece | None:
        """The next part of a message; None at the end, also when what came is no WebSocket."""
        while not self._pieces:
            if self._ended or not (data := await self._wire.read()):
                return None
            try:
                for frame in self._decoder.feed(data):
                    self._take(frame)
            except WebSocketError as error:
                self._shut(error.code, str(error))
                self._ended = True
        self._received += 1
        if not self._received % _TOGETHER:
            await asyncio.sleep(0)
        return self._pieces.popleft()

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """Send one message; waits while the client takes nothing. Raises ConnectionError."""
        if self._closing:
            raise ConnectionResetError("the WebSocket is closed")
        await self._wire.write(encode(Opcode.TEXT if text else Opcode.BINARY, data))

    def post(self, data: bytes) -> None:
        """Send one binary message without waiting."""
        if not self._closing:
            self._wire.send(encode(Opcode.BINARY, data))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say that nothing follows. The client answers, and closes; ``receive`` gives what it still sends."""
        self._shut(code, reason)

    def _take(self, frame: Piece | ControlFrame) -> None:
        if isinstance(frame, Piece):
            if not self._ended:
                self._pieces.append(frame)
        elif frame.opcode is Opcode.PING:
            if not self._closing:
                self._wire.send(encode(Opcode.PONG, frame.data))
        elif frame.opcode is Opcode.CLOSE:
            self._shut(NORMAL, "")
            self._ended = True

    def _shut(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._wire.send(encode(Opcode.CLOSE, close_payload(code, reason)))


class Tunnel:
    """A wire within the binary messages of a WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        """Take the WebSocket after the handshake."""
        self._websocket = websocket

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the connection has ended."""
        return self._websocket.closed

    async def read(self) -> bytes:
        """What came next; empty at the end. Messages of text end it: they are none of SPDY's."""
        while (piece := await self._websocket.receive()) is not None and not piece.text:
            if piece.data:
                return piece.data
        return b""

    async def write(self, data: bytes) -> None:
        """Send; waits while the client takes nothing. Raises ConnectionError."""
        await self._websocket.send(data)

    def send(self, data: bytes) -> None:
        """Send without waiting."""
        self._websocket.post(data)
