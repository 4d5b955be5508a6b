"""systemd-logind over D-Bus: a delay lock on shutdown, and the signal that one is about to come.

A client of some hundred lines for one service: three calls, one signal, one descriptor. Each part of the protocol that
is not needed for them is left out.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import NamedTuple

BUS = "/run/dbus/system_bus_socket"
_LOGIND, _PATH, _INTERFACE = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_MEMBER, _ERROR_NAME, _REPLY_TO, _UNIX_FDS = 3, 4, 5, 9
_LONGEST = 1 << 20
_PATIENCE = 10.0
"""Seconds for an answer of the bus."""


class Message(NamedTuple):
    """What of a message is of interest."""

    kind: int
    fields: dict[int, str | int]
    body: bytes
    descriptors: list[int]


class Logind:
    """The source of shutdowns on a host with systemd (``node.shutdown.ShutdownSource``)."""

    def __init__(self, path: str = BUS) -> None:
        """Connect later, to the bus at ``path``."""
        self._path, self._lock = path, -1

    @contextlib.asynccontextmanager
    async def watch(self, delay: float) -> AsyncIterator[AsyncIterator[bool]]:
        """Hold the lock, and give each PrepareForShutdown. Raises OSError."""
        bus = Bus(await asyncio.to_thread(_connect, self._path))
        try:
            await bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
            allowed = await bus.call(_LOGIND, _PATH, _PROPERTIES, "Get", _INTERFACE, "InhibitDelayMaxUSec")
            longest = _variant_u64(allowed.body) / 1e6
            if longest < delay:
                raise OSError(
                    f"logind waits {longest:g} s at most, {delay:g} s are asked for: set InhibitDelayMaxSec={delay:g} "
                    "in /etc/systemd/logind.conf.d and reload systemd-logind"
                )
            match = f"type='signal',sender='{_LOGIND}',interface='{_INTERFACE}',member='PrepareForShutdown'"
            bus_name = "org.freedesktop.DBus"
            await bus.call(bus_name, "/org/freedesktop/DBus", bus_name, "AddMatch", match)
            await self._hold(bus)
            yield self._announcements(bus)
        finally:
            self.release()
            bus.close()

    def release(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _hold(self, bus: Bus) -> None:
        self.release()
        answer = await bus.call(
            _LOGIND, _PATH, _INTERFACE, "Inhibit", "shutdown", "nodewright", "pods need time to end", "delay"
        )
        if not answer.descriptors:
            raise OSError("logind gave no lock")
        self._lock = answer.descriptors[0]

    async def _announcements(self, bus: Bus) -> AsyncIterator[bool]:
        while True:
            message = await bus.signal()
            if message.fields.get(_MEMBER) != "PrepareForShutdown":
                continue
            down = bool(struct.unpack_from("<I", message.body)[0])
            if not down:
                await self._hold(bus)  # called off: the next one shall wait, too
            yield down


class Bus:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        """Take an authenticated connection."""
        self._socket, self._serial = connection, 0
        self._buffer, self._descriptors = bytearray(), list[int]()
        self._signals: list[Message] = []

    async def call(self, destination: str, path: str, interface: str, member: str, *arguments: str) -> Message:
        """Call a method whose arguments are texts, and return its answer. Raises OSError."""
        self._serial += 1
        body = b""
        for argument in arguments:
            body = _pad(body, 4) + _text(argument)
        fields = [(1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination)]
        if arguments:
            fields.append((8, "g", "s" * len(arguments)))
        message = encode(_CALL, self._serial, fields, body)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE):
                await loop.sock_sendall(self._socket, message)
                while True:
                    answer = await self._next()
                    if answer.kind == _SIGNAL:
                        self._signals.append(answer)
                    elif answer.fields.get(_REPLY_TO) == self._serial:
                        break
        except TimeoutError:
            raise OSError(f"{destination} does not answer to {member}") from None
        if answer.kind == _ERROR:
            raise OSError(f"{destination}: {member}: {answer.fields.get(_ERROR_NAME)}")
        return answer

    async def signal(self) -> Message:
        """Wait for a signal. Raises OSError when the bus is gone."""
        while True:
            message = self._signals.pop(0) if self._signals else await self._next()
            if message.kind == _SIGNAL:
                return message

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors.clear()

    async def _next(self) -> Message:
        while True:
            message, used = decode(bytes(self._buffer))
            if message is not None:
                del self._buffer[:used]
                count = message.fields.get(_UNIX_FDS, 0)
                assert isinstance(count, int)
                taken = [self._descriptors.pop(0) for _ in range(min(count, len(self._descriptors)))]
                return message._replace(descriptors=taken)
            await _readable(self._socket)
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(4 * 16), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                continue
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    numbers = array.array("i")
                    numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                    self._descriptors.extend(numbers)
            if not data:
                raise ConnectionResetError("the system bus has closed the connection")
            self._buffer += data


def encode(kind: int, serial: int, fields: list[tuple[int, str, str]], body: bytes) -> bytes:
    """Write a message, little-endian."""
    array_ = b""
    for code, signature, value in fields:
        array_ = _pad(array_, 8) + bytes((code, 1)) + signature.encode() + b"\0"
        array_ = array_ + _signature(value) if signature == "g" else _pad(array_, 4) + _text(value)
    head = struct.pack("<BBBBIII", ord("l"), kind, 0, 1, len(body), serial, len(array_)) + array_
    return _pad(head, 8) + body


def decode(data: bytes) -> tuple[Message | None, int]:
    """Read the first message of a stream, and tell its length; None while it is not whole. Raises OSError."""
    if len(data) < 16:
        return None, 0
    if data[0] != ord("l"):
        raise OSError("the bus does not speak little-endian")
    size, _, length = struct.unpack_from("<III", data, 4)
    start = (16 + length + 7) // 8 * 8
    if start + size > _LONGEST:
        raise OSError("a message of the bus is too large")
    if len(data) < start + size:
        return None, 0
    fields, at = {}, 16
    try:
        while at < 16 + length:
            at = (at + 7) // 8 * 8
            code, signature = data[at], chr(data[at + 2])
            at += 4
            value: str | int
            if signature in "so":
                at = (at + 3) // 4 * 4
                (count,) = struct.unpack_from("<I", data, at)
                value, at = data[at + 4 : at + 4 + count].decode(), at + 5 + count
            elif signature == "g":
                count = data[at]
                value, at = data[at + 1 : at + 1 + count].decode(), at + 2 + count
            else:
                at = (at + 3) // 4 * 4
                (value,) = struct.unpack_from("<I", data, at)
                at += 4
            fields[code] = value
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise OSError(f"a message of the bus cannot be read: {error}") from None
    return Message(data[1], fields, data[start : start + size], []), start + size


def _connect(path: str) -> socket.socket:
    """Connect and authenticate as who we are. Blocks."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(path)
        except OSError as error:
            raise OSError(f"no system bus at {path} ({error.strerror}): is this a host with systemd?") from None
        connection.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        _expect(connection, b"OK")
        connection.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        _expect(connection, b"AGREE_UNIX_FD")
        connection.sendall(b"BEGIN\r\n")
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def _expect(connection: socket.socket, word: bytes) -> None:
    line = b""
    while not line.endswith(b"\r\n"):
        data = connection.recv(1)
        if not data or len(line) > 512:
            raise OSError("the system bus refuses us")
        line += data
    if not line.startswith(word):
        raise OSError(f"the system bus refuses us: {line.decode(errors='replace').strip()}")


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, tell)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _variant_u64(body: bytes) -> int:
    """Read a variant that holds a 64-bit number: signature ``t``, aligned to eight bytes."""
    if body[:3] != b"\x01t\0" or len(body) < 16:
        raise OSError("logind says its longest delay in a way that is not understood")
    return int(struct.unpack_from("<Q", body, 8)[0])


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _signature(value: str) -> bytes:
    return bytes((len(value),)) + value.encode() + b"\0"


def _pad(data: bytes, to: int) -> bytes:
    return data + b"\0" * (-len(data) % to)
