"""exec and attach: a client's streams, over SPDY or WebSocket channels, and the end of the command told to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web

from nodewright_agent.server.streaming import wschannels
from nodewright_agent.server.streaming.backend import Container, StreamError, Streams
from nodewright_agent.server.streaming.flow import Inbox
from nodewright_agent.server.streaming.options import RemoteOptions
from nodewright_agent.server.streaming.sizes import Sizes
from nodewright_agent.server.streaming.spdy import SpdyConnection, SpdyStream
from nodewright_agent.server.streaming.status import SUCCESS, Status, exited, failed
from nodewright_agent.server.streaming.upgrade import Sessions, alongside, spdy_answer, websocket_answer
from nodewright_agent.server.streaming.websocket import WebSocket, is_websocket
from nodewright_agent.server.streaming.wire import Wire
from nodewright_agent.server.streaming.wschannels import ChannelSink, Demultiplexer

logger = logging.getLogger(__name__)

SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_RESIZABLE = SPDY_PROTOCOLS[:2]

Work = Callable[[Streams], Awaitable[Status]]


class _Client(Protocol):
    """A client's connection."""

    async def run(self, work: Work) -> None: ...


async def serve_exec(
    sessions: Sessions, request: web.Request, options: RemoteOptions, argv: Sequence[str], container: Container
) -> web.StreamResponse:
    """Run a command. Raises Refused when the request cannot be upgraded."""

    async def work(streams: Streams) -> Status:
        try:
            return exited(argv, await container.exec(argv, streams))
        except StreamError as error:
            return failed(f"error executing command in container: {error}")

    return await _serve(sessions, request, options, work)


async def serve_attach(
    sessions: Sessions, request: web.Request, options: RemoteOptions, container: Container
) -> web.StreamResponse:
    """Attach to the first process. Raises Refused when the request cannot be upgraded."""

    async def work(streams: Streams) -> Status:
        try:
            await container.attach(streams)
            return SUCCESS
        except StreamError as error:
            return failed(f"error attaching to container: {error}")

    return await _serve(sessions, request, options, work)


async def _serve(sessions: Sessions, request: web.Request, options: RemoteOptions, work: Work) -> web.StreamResponse:
    make: Callable[[Wire], _Client]
    if is_websocket(request):
        protocol, headers = websocket_answer(request, wschannels.REMOTE)
        make = lambda wire: _WebSocketClient(wire, protocol, options, sessions)  # noqa: E731 - one of two
    else:
        protocol, headers = spdy_answer(request, SPDY_PROTOCOLS, SPDY_PROTOCOLS[-1])
        make = lambda wire: _SpdyClient(wire, protocol, options, sessions)  # noqa: E731 - one of two
    return await sessions.run(request, headers, lambda wire: make(wire).run(work))


class _WebSocketClient:
    """Channels in a WebSocket."""

    def __init__(self, wire: Wire, protocol: str, options: RemoteOptions, sessions: Sessions) -> None:
        self._websocket = WebSocket(wire)
        self._protocol, self._options, self._limits = protocol, options, sessions.limits
        self._stdin, self._resize = Inbox(), Inbox()
        if not options.stdin:
            self._stdin.discard()

    async def run(self, work: Work) -> None:
        await alongside(self._read(), lambda: self._work(work))

    async def _work(self, work: Work) -> None:
        options = self._options
        stdout, stderr, error = (self._sink(one) for one in (wschannels.STDOUT, wschannels.STDERR, wschannels.ERROR))
        # An empty message tells that the connection is there.
        await (stdout if options.stdout else stderr if options.stderr else error).write(b"")
        status = await work(
            Streams(
                self._stdin if options.stdin else None,
                stdout if options.stdout else None,
                stderr if options.stderr else None,
                options.tty,
                Sizes(self._resize),
            )
        )
        self._stdin.discard()
        self._resize.discard()
        if text := status.encode(structured=self._protocol in wschannels.STRUCTURED):
            await error.write(text)
        self._websocket.close()
        await asyncio.wait((self._websocket.closed,), timeout=self._limits.finish)

    async def _read(self) -> None:
        demultiplexer = Demultiplexer(self._protocol)
        inboxes = {wschannels.STDIN: self._stdin, wschannels.RESIZE: self._resize}
        while (piece := await self._websocket.receive()) is not None:
            try:
                found = demultiplexer.feed(piece)
            except ValueError as error:
                self._websocket.close(1007, str(error))
                return
            if found is None or (inbox := inboxes.get(found[0])) is None:
                continue
            if found[1] is None:
                inbox.end()
            else:
                await inbox.put(found[1])

    def _sink(self, channel: int) -> ChannelSink:
        return ChannelSink(self._websocket, self._protocol, channel)


class _SpdyClient:
    """Streams of SPDY, which their header ``streamtype`` names."""

    def __init__(self, wire: Wire, protocol: str, options: RemoteOptions, sessions: Sessions) -> None:
        self._wire, self._protocol, self._options, self._limits = wire, protocol, options, sessions.limits
        self._connection = SpdyConnection(wire, self._accept)
        self._streams: dict[str, SpdyStream] = {}
        self._wanted = {"error"}
        wanted = {"stdin": options.stdin, "stdout": options.stdout, "stderr": options.stderr}
        wanted["resize"] = options.tty and protocol in _RESIZABLE
        self._wanted |= {name for name, value in wanted.items() if value}
        self._complete = asyncio.Event()

    async def run(self, work: Work) -> None:
        await alongside(self._connection.run(), lambda: self._work(work))

    def _accept(self, stream: SpdyStream) -> str | None:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._wanted or kind in self._streams:
            return f"unexpected stream type {kind!r}"
        self._streams[kind] = stream
        if len(self._streams) == len(self._wanted):
            self._complete.set()
        return None

    async def _work(self, work: Work) -> None:
        try:
            async with asyncio.timeout(self._limits.creation):
                await self._complete.wait()
        except TimeoutError:
            logger.info("a client did not open its streams in time")
            return
        get = self._streams.get
        resize = get("resize")
        status = await work(
            Streams(get("stdin"), get("stdout"), get("stderr"), self._options.tty, Sizes(resize) if resize else None)
        )
        for name in ("stdin", "resize"):
            if (stream := get(name)) is not None:
                stream.inbox.discard()
        error = self._streams["error"]
        if text := status.encode(structured=self._protocol == SPDY_PROTOCOLS[0]):
            await error.write(text)
        for name in ("stdout", "stderr", "error"):
            if (stream := get(name)) is not None:
                stream.close()
        await asyncio.wait((self._connection.closed,), timeout=self._limits.finish)
