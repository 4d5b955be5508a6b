"""The gRPC health check (grpc.health.v1.Health/Check) over HTTP/2 without TLS: one connection, one call.

Written out here because one unary call needs little of HTTP/2, while grpcio would cost the agent some 10 MB. Every
answer of a server, however wrong, ends in a result: what it sends is bounded and never trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field
from urllib.parse import unquote

from nodewright_agent.pods.probes import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH = 1, 2
_STREAM = 1
_MAX_FRAME, _MAX_TOTAL = 16384, 65535
_METHOD = "/grpc.health.v1.Health/Check"

SERVING = "SERVING"
_STATUSES = ("UNKNOWN", SERVING, "NOT_SERVING", "SERVICE_UNKNOWN")
CODES = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
]


class CallError(Exception):
    """The call failed: ``code`` is gRPC's name of the status, the text is what the server says."""

    def __init__(self, code: str, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(slots=True)
class _Answer:
    """What has come of the stream."""

    headers: dict[str, str] = field(default_factory=dict)
    block: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False


async def check(host: str, port: int, service: str, user_agent: str, timeout: float) -> str:
    """Ask for the health of ``service`` (empty: the server's) and return its status by name.

    Raises OSError when there is no connection, CallError when the call fails. The caller bounds the time; ``timeout``
    (seconds) is only told to the server.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request(host, port, service, user_agent, timeout))
        answer = await _receive(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return outcome(answer.headers, bytes(answer.data))


def request(host: str, port: int, service: str, user_agent: str, timeout: float) -> bytes:
    """Return everything that the client sends of its own accord. Pure."""
    shown = f"[{host}]" if ":" in host else host
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", _METHOD),
        (":authority", f"{shown}:{port}"),
        ("content-type", "application/grpc"),
        ("user-agent", user_agent),
        ("te", "trailers"),
        ("grpc-timeout", f"{int(timeout * 1000)}m"),
    ]
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _ENABLE_PUSH, 0)
    return b"".join(
        (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, settings),
            _frame(_HEADERS, _END_HEADERS, _STREAM, hpack.encode(fields)),
            _frame(_DATA, _END_STREAM, _STREAM, struct.pack(">BI", 0, len(message)) + message),
        )
    )


def outcome(headers: dict[str, str], data: bytes) -> str:
    """Return the health status from all headers and data of an answer. Raises CallError. Pure."""
    http = headers.get(":status", "200")
    if "grpc-status" not in headers:
        if http != "200":
            code = {"404": "Unimplemented", "401": "Unauthenticated", "403": "PermissionDenied"}.get(
                http, "Unavailable"
            )
            raise CallError(code, f"unexpected HTTP status code received from server: {http}")
        raise CallError("Internal", "server closed the stream without sending trailers")
    number = headers["grpc-status"]
    if number != "0":
        known = number.isdecimal() and len(number) < 3 and int(number) < len(CODES)
        raise CallError(CODES[int(number)] if known else "Unknown", unquote(headers.get("grpc-message", "")))
    if len(data) < 5 or data[0] != 0 or struct.unpack(">I", data[1:5])[0] != len(data) - 5:
        raise CallError("Internal", "the answer holds no message that can be read")
    status = _enum(data[5:])
    return _STATUSES[status] if status < len(_STATUSES) else str(status)


async def _receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Answer:
    answer, total = _Answer(), 0
    while not answer.ended:
        try:
            head = await reader.readexactly(9)
            length = int.from_bytes(head[:3], "big")
            if length > _MAX_FRAME:
                raise CallError("Internal", "the server does not speak HTTP/2")
            payload = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise CallError("Unavailable", "connection closed before server preface received") from None
        total += len(head) + length
        if total > _MAX_TOTAL:
            raise CallError("ResourceExhausted", "the server sends too much")
        reply = _take(answer, head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload)
        if reply:
            writer.write(reply)
    return answer


def _take(answer: _Answer, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Add a frame to the answer; return what has to be sent for it."""
    if kind == _SETTINGS and not flags & _ACK:
        return _frame(_SETTINGS, _ACK, 0, b"")
    if kind == _PING and not flags & _ACK:
        return _frame(_PING, _ACK, 0, payload)
    if kind == _GOAWAY and int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < _STREAM:
        raise CallError("Unavailable", "the server is going away")
    if stream != _STREAM:
        return b""
    if kind == _RST_STREAM:
        raise CallError("Unavailable", f"stream terminated by RST_STREAM with error code: {payload[:4].hex()}")
    if kind == _DATA:
        answer.data += _unpadded(payload, flags)
        answer.ended = bool(flags & _END_STREAM)
    elif kind == _HEADERS:
        block = _unpadded(payload, flags)
        answer.block += block[5:] if flags & _PRIORITY else block
        answer.ended = bool(flags & _END_STREAM) and bool(flags & _END_HEADERS)
        _headers(answer, flags)
    elif kind == _CONTINUATION:
        answer.block += payload
        _headers(answer, flags)
        # Trailers in two frames: the first one said that the stream ends, and grpc-status can only be in the last.
        answer.ended = bool(flags & _END_HEADERS) and "grpc-status" in answer.headers
    return b""


def _headers(answer: _Answer, flags: int) -> None:
    if flags & _END_HEADERS:
        try:
            answer.headers |= hpack.decode(bytes(answer.block))
        except hpack.HpackError as error:
            raise CallError("Internal", str(error)) from None
        answer.block.clear()


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED or not payload:
        return payload
    return payload[1 : max(1, len(payload) - payload[0])]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _enum(message: bytes) -> int:
    """Return field 1 of a protobuf message, 0 where it is absent. Raises CallError."""
    if not message:
        return 0
    value = shift = 0
    for byte in message[1:6]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            if message[0] == 0x08:
                return value
            break
    raise CallError("Internal", "the answer holds no message that can be read")
