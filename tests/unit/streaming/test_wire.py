"""Who may write to a connection, and how messages come out of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nodewright_agent.server.streaming.websocket import WebSocket
from nodewright_agent.server.streaming.wire import MAX_UNSENT, SocketWire


class Transport:
    """Takes one write, and then wants a pause."""

    def __init__(self) -> None:
        self.wire: Any = None
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.wire.pause_writing()

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))

    def abort(self) -> None:
        pass


async def test_writers_that_waited_do_not_all_write_at_once():
    transport: Any = Transport()
    wire = transport.wire = SocketWire(transport, 100)
    writers = [asyncio.create_task(wire.write(b"%d" % number)) for number in range(5)]
    await asyncio.sleep(0)
    assert transport.written == [b"0"]
    wire.resume_writing()
    await asyncio.sleep(0.01)
    assert len(transport.written) == 2
    wire.abort()
    for writer in writers[2:]:
        with pytest.raises(ConnectionResetError):
            await writer


async def test_a_client_that_only_asks_is_cut_off():
    """What it asked for does not pile up without bound."""
    transport: Any = Transport()
    wire = transport.wire = SocketWire(transport, 100)
    while not wire.closed.done():
        wire.send(b"x" * 1000)
    assert MAX_UNSENT < transport.get_write_buffer_size() <= MAX_UNSENT + 1000


class Frames:
    """The bytes of many small messages, at once."""

    def __init__(self, count: int) -> None:
        self.data = [b"\x82\x81\0\0\0\0x" * count]
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self) -> bytes:
        return self.data.pop() if self.data else b""

    async def write(self, data: bytes) -> None:
        pass

    def send(self, data: bytes) -> None:
        pass


async def test_many_small_messages_leave_the_loop_to_others():
    websocket, found = WebSocket(Frames(1000)), []

    async def read() -> None:
        while (piece := await websocket.receive()) is not None:
            found.append(piece.data)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(found) < 1000
    await reading
    assert found == [b"x"] * 1000
