"""Bytes both ways over a connection that was an HTTP request's: taken from aiohttp after the upgrade.

aiohttp keeps the request's task; the socket's bytes come here. Reading stops while nobody takes what came (so that the
peer waits), and a peer that goes away meanwhile is noticed all the same.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Protocol

from aiohttp import web

HIGH_WATER = 256 << 10
"""Bytes that wait to be read before the peer has to wait."""
MAX_UNSENT = 4 << 20
"""Bytes that wait to be sent: a peer that only asks, and never reads the answers, is cut off."""
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 9))
"""Go's: a client whose host is gone without a word is noticed after two and a half minutes."""


class Wire(Protocol):
    """A connection, as the protocols on top of it need it."""

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the peer, or we, have ended it."""
        ...

    async def read(self) -> bytes:
        """What came next; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the peer takes nothing. Raises ConnectionError when it is gone."""
        ...

    def send(self, data: bytes) -> None:
        """Send without waiting: for the few bytes of control frames. Nothing happens when the peer is gone."""
        ...


class SocketWire(asyncio.Protocol):
    """The socket itself."""

    def __init__(self, transport: asyncio.Transport, idle: float) -> None:
        """Take the transport over. ``idle``: seconds without a byte in either direction after which it is ended."""
        self._loop = asyncio.get_running_loop()
        self._transport, self._idle = transport, idle
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._chunks: list[bytes] = []
        self._size, self._paused = 0, False
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._active = self._loop.time()
        self._timer = self._loop.call_later(idle, self._check_idle)
        self._watch: select.epoll | None = None

    # what the loop calls

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._active = self._loop.time()
        self._chunks.append(data)
        self._size += len(data)
        self._news.set()
        if self._size >= HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            self._watch_end()

    def eof_received(self) -> bool:
        """End it: none of the protocols closes one direction only."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody."""
        self._end()

    def pause_writing(self) -> None:
        """Have writers wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let them go on."""
        self._writable.set()

    # what the protocols call

    async def read(self) -> bytes:
        """What came next; empty at the end."""
        while not self._chunks and not self.closed.done():
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and not self.closed.done():
            self._paused = False
            self._unwatch()
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the peer takes nothing. Raises ConnectionError when it is gone."""
        while not self._writable.is_set():
            await self._writable.wait()
        if self.closed.done():
            raise ConnectionResetError("the client is gone")
        self.send(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def send(self, data: bytes) -> None:
        """Send without waiting. Ends the connection when the peer has not taken ``MAX_UNSENT`` bytes yet."""
        if not self.closed.done():
            self._active = self._loop.time()
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > MAX_UNSENT:
                self.abort()

    def abort(self) -> None:
        """End it at once."""
        if not self.closed.done():
            self._end()
            self._transport.abort()

    def close(self) -> None:
        """End it once all that was written has been sent."""
        if not self.closed.done():
            self._end()
            self._transport.close()

    def _end(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        self._timer.cancel()
        self._unwatch()
        self._news.set()
        self._writable.set()

    def _check_idle(self) -> None:
        left = self._active + self._idle - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        else:
            self.abort()

    def _watch_end(self) -> None:
        """While we do not read, nobody would tell that the peer has closed: the kernel does."""
        connection = self._transport.get_extra_info("socket")
        if connection is None or self._watch is not None:
            return
        self._watch = select.epoll()
        try:
            self._watch.register(connection.fileno(), select.EPOLLRDHUP)
        except OSError:
            self._unwatch()
            return
        self._loop.add_reader(self._watch.fileno(), self.abort)

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None


class Upgraded(web.StreamResponse):
    """What a handler returns whose connection was taken over: there is nothing left to answer."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send no headers."""
        self.force_close()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send no end."""


def take_over(request: web.Request, headers: list[tuple[str, str]], idle: float) -> SocketWire:
    """Answer 101 with ``headers`` and take the connection. Raises ConnectionResetError when it is gone.

    ``give_back`` must follow, however the session ended.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    wire = SocketWire(transport, idle)
    transport.set_protocol(wire)
    if (connection := transport.get_extra_info("socket")) is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers)]
    transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    return wire


def give_back(request: web.Request, wire: SocketWire) -> Upgraded:
    """Close the connection and let aiohttp forget it."""
    wire.close()
    # Closed twice, a TLS transport of Python 3.11 loses its protocol.
    request.protocol.transport = None
    # It thinks that the connection is there still; told from the loop, since it cancels the task that it has for it.
    asyncio.get_running_loop().call_soon(request.protocol.connection_lost, None)
    return Upgraded()
