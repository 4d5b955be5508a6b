"""SPDY/3.1 frames to and from bytes. Pure: no I/O.

The protocol is draft 3 of SPDY with the name 3.1, as Kubernetes' clients speak it: they know no flow control windows.
DATA is handed on in the pieces in which it comes, so that a frame of 16 MiB costs no memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

VERSION = 3
MAX_STREAM = 0x7FFFFFFF
MAX_CONTROL = 64 << 10
"""Bytes of a control frame; what clients of Kubernetes send is below 1 KiB."""
MAX_HEADERS = 16 << 10
"""Bytes of a header block after decompression."""
MAX_DATA = (1 << 24) - 1

_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
]
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in _WORDS) + _REST.encode()
"""What both sides' compressors know before the first header (section 2.6.10.1 of the draft)."""


class Kind(IntEnum):
    """Types of control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Reset(IntEnum):
    """Why a stream is reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6


FIN = 1


class SpdyError(Exception):
    """What came is not SPDY/3.1, or is too large; the connection cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream; ``fin`` with the last one."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """A control frame. ``number`` is its only field beside the stream: a status, a ping's id, a window's growth."""

    kind: Kind
    stream: int = 0
    number: int = 0
    fin: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


Frame = Data | Control


class Decoder:
    """Bytes in, frames out; keeps the decompressor's state, so there is one for each connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._stream, self._left, self._fin = 0, 0, False  # of the DATA frame that is under way

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and give what is complete. Raises SpdyError; the decoder is of no use then."""
        self._buffer += data
        while self._buffer:
            if self._left:
                piece = bytes(self._buffer[: self._left])
                del self._buffer[: len(piece)]
                self._left -= len(piece)
                yield Data(self._stream, piece, self._fin and not self._left)
                continue
            if len(self._buffer) < 8:
                return
            first, second = struct.unpack_from(">II", self._buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first >> 31:
                del self._buffer[:8]
                if not first:
                    raise SpdyError("DATA without a stream")
                self._stream, self._left, self._fin = first, length, bool(flags & FIN)
                if not length:
                    yield Data(first, b"", self._fin)
                continue
            if length > MAX_CONTROL:
                raise SpdyError(f"control frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if (frame := self._control(first >> 16 & 0x7FFF, first & 0xFFFF, flags, body)) is not None:
                yield frame

    def _control(self, version: int, number: int, flags: int, body: bytes) -> Control | None:
        if version != VERSION:
            raise SpdyError(f"SPDY version {version}")
        try:
            kind = Kind(number)
        except ValueError:
            return None  # to be ignored, says the draft
        fin = bool(flags & FIN)
        match kind:
            case Kind.SYN_STREAM:
                (stream,) = _unpack(">I6x", body)
                return Control(kind, _stream(stream), fin=fin, headers=self._headers(body[10:]))
            case Kind.SYN_REPLY | Kind.HEADERS:
                (stream,) = _unpack(">I", body)
                return Control(kind, _stream(stream), fin=fin, headers=self._headers(body[4:]))
            case Kind.RST_STREAM | Kind.WINDOW_UPDATE:
                stream, value = _unpack(">II", body)
                return Control(kind, stream & MAX_STREAM, value)
            case Kind.PING:
                return Control(kind, number=_unpack(">I", body)[0])
            case Kind.GOAWAY:
                stream, value = _unpack(">II", body)
                return Control(kind, stream & MAX_STREAM, value)
            case _:
                return Control(kind)  # SETTINGS: none of them changes what we do

    def _headers(self, compressed: bytes) -> dict[str, str]:
        try:
            block = self._inflate.decompress(compressed, MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"header block: {error}") from None
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise SpdyError("header block is too large, or ends the compressed stream")
        (count,) = _unpack(">I", block)
        found: dict[str, str] = {}
        at = 4
        for _ in range(count):
            name, at = _string(block, at)
            value, at = _string(block, at)
            if not name or name.lower() in found:
                raise SpdyError("header without a name, or given twice")
            found[name.lower()] = value
        if at != len(block):
            raise SpdyError("bytes behind the last header")
        return found


class Encoder:
    """Frames in, bytes out; keeps the compressor's state, so there is one for each connection."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        """Write one frame. DATA of more than 16 MiB is a ValueError."""
        if isinstance(frame, Data):
            if len(frame.data) > MAX_DATA:
                raise ValueError(f"DATA of {len(frame.data)} bytes")
            return struct.pack(">II", frame.stream, int(frame.fin) << 24 | len(frame.data)) + frame.data
        match frame.kind:
            case Kind.SYN_STREAM:
                body = struct.pack(">I6x", frame.stream) + self._headers(frame.headers)
            case Kind.SYN_REPLY | Kind.HEADERS:
                body = struct.pack(">I", frame.stream) + self._headers(frame.headers)
            case Kind.PING:
                body = struct.pack(">I", frame.number)
            case Kind.SETTINGS:
                body = struct.pack(">I", 0)
            case _:
                body = struct.pack(">II", frame.stream, frame.number)
        first = 1 << 31 | VERSION << 16 | frame.kind
        return struct.pack(">II", first, int(frame.fin) << 24 | len(body)) + body

    def _headers(self, headers: Mapping[str, str]) -> bytes:
        words = [word.encode("latin-1") for pair in headers.items() for word in pair]
        block = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(word)) + word for word in words)
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _unpack(form: str, body: bytes) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, body)
    except struct.error:
        raise SpdyError("control frame is too short") from None


def _stream(number: int) -> int:
    if not number & MAX_STREAM:
        raise SpdyError("control frame without a stream")
    return number & MAX_STREAM


def _string(block: bytes, at: int) -> tuple[str, int]:
    if at + 4 > len(block):
        raise SpdyError("header block is too short")
    (length,) = struct.unpack_from(">I", block, at)
    end = at + 4 + length
    if end > len(block):
        raise SpdyError("header block is too short")
    return block[at + 4 : end].decode("latin-1"), end
