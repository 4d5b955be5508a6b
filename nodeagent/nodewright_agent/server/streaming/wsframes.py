"""WebSocket frames (RFC 6455, the server's side) to and from bytes. Pure: no I/O.

Messages are handed on in the pieces in which they come: a client may send megabytes as one message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAX_CONTROL = 125


class Opcode(IntEnum):
    """Types of frames."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class WebSocketError(Exception):
    """What came is no WebSocket frame; ``code`` is that of the close frame to answer with."""

    def __init__(self, text: str, code: int = 1002) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message. ``start``: its first one; ``end``: its last one. ``text``: whether it is a text message."""

    data: bytes
    text: bool
    start: bool
    end: bool


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """Close, ping or pong."""

    opcode: Opcode
    data: bytes


class Decoder:
    """Bytes in, pieces of messages and control frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._kind: Opcode | None = None  # of the message that is under way
        self._start = False
        # of the data frame that is under way: bytes left, mask, how far the mask is used, last frame of its message
        self._left, self._mask, self._at, self._final = 0, b"", 0, False

    def feed(self, data: bytes) -> Iterator[Piece | ControlFrame]:
        """Take bytes and give what there is. Raises WebSocketError; the decoder is of no use then."""
        self._buffer += data
        while self._buffer:
            if self._left:
                piece = self._unmask(bytes(self._buffer[: self._left]))
                del self._buffer[: len(piece)]
                self._left -= len(piece)
                yield self._piece(piece)
                continue
            header = self._header()
            if header is None:
                return
            opcode, final, size, length, mask = header
            if opcode >= Opcode.CLOSE:
                if len(self._buffer) < size + length:
                    return
                payload = bytes(self._buffer[size : size + length])
                del self._buffer[: size + length]
                yield ControlFrame(opcode, _xor(payload, mask, 0))
                continue
            del self._buffer[:size]
            if opcode is not Opcode.CONTINUATION:
                self._kind, self._start = opcode, True
            self._left, self._mask, self._at, self._final = length, mask, 0, final
            if not length:
                yield self._piece(b"")

    def _header(self) -> tuple[Opcode, bool, int, int, bytes] | None:
        """Opcode, whether it is the message's last frame, size of the header, length, mask; None: more must come."""
        if len(self._buffer) < 2:
            return None
        first, second = self._buffer[0], self._buffer[1]
        length, at = second & 0x7F, 2
        if first & 0x70:
            raise WebSocketError("reserved bits are set")
        if not second & 0x80:
            raise WebSocketError("the client's frame is not masked")
        try:
            opcode = Opcode(first & 0xF)
        except ValueError:
            raise WebSocketError(f"opcode {first & 0xF}") from None
        final = bool(first & 0x80)
        if opcode >= Opcode.CLOSE and (length > MAX_CONTROL or not final):
            raise WebSocketError("control frame is too long or fragmented")
        if opcode < Opcode.CLOSE and (opcode is Opcode.CONTINUATION) != (self._kind is not None):
            raise WebSocketError("continuation without a message, or a message within another one")
        if length >= 126:
            wide = 2 if length == 126 else 8
            if len(self._buffer) < at + wide:
                return None
            length = int.from_bytes(self._buffer[at : at + wide], "big")
            if length >> 63:
                raise WebSocketError("length of more than 63 bits")
            at += wide
        if len(self._buffer) < at + 4:
            return None
        return opcode, final, at + 4, length, bytes(self._buffer[at : at + 4])

    def _unmask(self, data: bytes) -> bytes:
        plain = _xor(data, self._mask, self._at)
        self._at = (self._at + len(data)) % 4
        return plain

    def _piece(self, data: bytes) -> Piece:
        end = self._final and not self._left
        made = Piece(data, self._kind is Opcode.TEXT, self._start, end)
        self._start = False
        if end:
            self._kind = None
        return made


def encode(opcode: Opcode, data: bytes) -> bytes:
    """One frame that is a whole message, or a control frame; a server's frames are not masked."""
    length = len(data)
    if length < 126:
        head = struct.pack(">BB", 0x80 | opcode, length)
    elif length < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 126, length)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, length)
    return head + data


def close_payload(code: int, reason: str = "") -> bytes:
    """The data of a close frame."""
    return struct.pack(">H", code) + reason.encode()[: MAX_CONTROL - 2]


def _xor(data: bytes, mask: bytes, at: int) -> bytes:
    """Exclusive or with the mask, as one number: 100 times faster than byte by byte."""
    if not data:
        return data
    mask = mask[at:] + mask[:at]
    length = len(data)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
