"""A SPDY/3.1 connection, the server's side: streams that the client opens, over any wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from nodewright_agent.server.streaming.flow import Inbox
from nodewright_agent.server.streaming.spdyframes import (
    MAX_STREAM,
    Control,
    Data,
    Decoder,
    Encoder,
    Frame,
    Kind,
    Reset,
    SpdyError,
)
from nodewright_agent.server.streaming.wire import Wire

MAX_STREAMS = 2000
"""Open at the same time on one connection; more are refused."""
_CHUNK = 64 << 10
_INBOX = 64 << 10
"""Bytes of one stream that wait to be read: there may be many streams."""


class SpdyStream:
    """One stream: what the client sends is read, what is written it gets."""

    def __init__(self, connection: SpdyConnection, number: int, headers: Mapping[str, str]) -> None:
        self.number, self.headers = number, headers
        self.inbox = Inbox(_INBOX)
        self.reset_received = asyncio.Event()
        self._connection = connection
        self._finished = False

    async def read(self) -> bytes:
        """What the client sent next; empty at the end, and after a reset."""
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """Send; waits while the client takes nothing. Raises ConnectionError when it has given the stream up."""
        for at in range(0, len(data), _CHUNK):
            if self._finished:
                raise BrokenPipeError("the stream is closed")
            await self._connection.write(Data(self.number, data[at : at + _CHUNK]))

    def close(self) -> None:
        """Say that nothing follows; what the client sends is still read. Idempotent."""
        if not self._finished:
            self._finished = True
            self._connection.send(Data(self.number, b"", fin=True))
        self._connection.forget(self)

    def reset(self, status: Reset = Reset.CANCEL) -> None:
        """Give the stream up in both directions; idempotent."""
        if self._connection.streams.pop(self.number, None) is not None:
            self._finished = True
            self._connection.send(Control(Kind.RST_STREAM, self.number, status))
        self.inbox.discard()

    @property
    def finished(self) -> bool:
        """Whether nothing more is sent."""
        return self._finished

    def was_reset(self) -> None:
        """The client has given it up."""
        self._finished = True
        self.inbox.end()
        self.reset_received.set()


class SpdyConnection:
    """Reads frames, and gives each new stream to ``accept``; a text that it returns refuses the stream."""

    def __init__(self, wire: Wire, accept: Callable[[SpdyStream], str | None]) -> None:
        """Take the wire after the upgrade; nothing is read before ``run``."""
        self._wire, self._accept = wire, accept
        self._encoder = Encoder()
        self.streams: dict[int, SpdyStream] = {}
        self._last = 0
        self._going = False

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the connection has ended."""
        return self._wire.closed

    async def run(self) -> None:
        """Read until the client closes, or sends what is no SPDY/3.1; then all streams are at their end."""
        decoder = Decoder()
        try:
            while data := await self._wire.read():
                for frame in decoder.feed(data):
                    await self._take(frame)
        except SpdyError:
            self.go_away(1)
        finally:
            for stream in self.streams.values():
                stream.was_reset()
            self.streams.clear()

    async def write(self, frame: Frame) -> None:
        """Send a frame; waits while the client takes nothing."""
        await self._wire.write(self._encoder.encode(frame))

    def send(self, frame: Frame) -> None:
        """Send a small frame at once."""
        self._wire.send(self._encoder.encode(frame))

    def go_away(self, status: int = 0) -> None:
        """Say that no new streams are taken; idempotent."""
        if not self._going:
            self._going = True
            self.send(Control(Kind.GOAWAY, self._last, status))

    def forget(self, stream: SpdyStream) -> None:
        """A stream that both sides have finished need not be known any more."""
        if stream.finished and stream.inbox.ended:
            self.streams.pop(stream.number, None)

    async def _take(self, frame: Frame) -> None:
        if isinstance(frame, Data):
            await self._data(frame)
            return
        match frame.kind:
            case Kind.SYN_STREAM:
                self._open(frame)
            case Kind.RST_STREAM:
                if (stream := self.streams.pop(frame.stream, None)) is not None:
                    stream.was_reset()
            case Kind.HEADERS:
                if frame.fin:
                    await self._data(Data(frame.stream, b"", fin=True))
            case Kind.PING:
                if frame.number & 1:  # the even ones would be our own
                    self.send(frame)
            case Kind.GOAWAY:
                self._going = True
            case _:
                pass  # no flow control windows, no settings, no streams of our own that could be answered

    async def _data(self, frame: Data) -> None:
        stream = self.streams.get(frame.stream)
        if stream is None:
            return  # reset meanwhile
        await stream.inbox.put(frame.data)
        if frame.fin:
            stream.inbox.end()
            self.forget(stream)

    def _open(self, frame: Control) -> None:
        number = frame.stream
        if self._going:
            return
        if number % 2 == 0 or number <= self._last or number > MAX_STREAM:
            self.send(Control(Kind.RST_STREAM, number, Reset.PROTOCOL_ERROR))
            return
        self._last = number
        if len(self.streams) >= MAX_STREAMS:
            self.send(Control(Kind.RST_STREAM, number, Reset.REFUSED_STREAM))
            return
        stream = SpdyStream(self, number, frame.headers)
        self.streams[number] = stream
        if frame.fin:
            stream.inbox.end()
        if self._accept(stream) is not None:
            stream.reset()
            return
        self.send(Control(Kind.SYN_REPLY, number))
