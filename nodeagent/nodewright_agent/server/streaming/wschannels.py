"""The subprotocols ``[vN.][base64.]channel.k8s.io``: several streams in one WebSocket, named by a message's first byte.

v5 can say that a stream has ended (byte 255 and its number); v4 and v5 tell the end as a v1.Status. The others are the
same as v1. The ``base64`` ones write the number as a digit, and the data as base64 in messages of text.
"""

from __future__ import annotations

import base64
import binascii

from nodewright_agent.server.streaming.websocket import WebSocket
from nodewright_agent.server.streaming.wsframes import Piece

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255
V5 = "v5.channel.k8s.io"
STRUCTURED = (V5, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
BASE64 = ("base64.channel.k8s.io", "v4.base64.channel.k8s.io")
REMOTE = (*STRUCTURED, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")
"""Of exec and attach; no subprotocol at all is the last but one."""
PORTS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")


class Demultiplexer:
    """Pieces of messages in, (channel, data) out; data None: the client has closed the channel. Pure."""

    def __init__(self, protocol: str) -> None:
        """Take the subprotocol."""
        self._base64, self._can_close = protocol in BASE64, protocol == V5
        self._channel: int | None = None
        self._rest = b""  # base64 that is not four characters yet

    def feed(self, piece: Piece) -> tuple[int, bytes | None] | None:
        """One piece of a message. Raises ValueError where it is no base64, or no channel."""
        data = piece.data
        if piece.start:
            self._channel, self._rest = None, b""
        if self._channel is None:
            if not data:
                return None
            self._channel = self._number(data[0])
            data = data[1:]
        channel = self._channel
        if channel == CLOSE and self._can_close:
            return (data[0], None) if data else None
        if self._base64:
            data = self._decode(data, piece.end)
        return channel, data

    def _number(self, byte: int) -> int:
        if not self._base64:
            return byte
        if not 0x30 <= byte <= 0x39:
            raise ValueError("no channel's digit")
        return byte - 0x30

    def _decode(self, data: bytes, end: bool) -> bytes:
        data = self._rest + data
        whole = len(data) if end else len(data) // 4 * 4
        data, self._rest = data[:whole], data[whole:]
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None


class ChannelSink:
    """Writes to one channel."""

    def __init__(self, websocket: WebSocket, protocol: str, channel: int) -> None:
        """Take the WebSocket, its subprotocol and the channel's number."""
        self._websocket, self._channel, self._base64 = websocket, channel, protocol in BASE64

    async def write(self, data: bytes) -> None:
        """Send one message; waits while the client takes nothing. Raises ConnectionError."""
        if self._base64:
            await self._websocket.send(b"%d" % self._channel + base64.b64encode(data), text=True)
        else:
            await self._websocket.send(bytes((self._channel,)) + data)
