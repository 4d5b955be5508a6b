"""port-forward: pairs of streams (data, error), over SPDY, SPDY tunnelled in a WebSocket, or WebSocket channels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from nodewright_agent.server.streaming import options, websocket, wschannels
from nodewright_agent.server.streaming.backend import PodPorts, StreamError
from nodewright_agent.server.streaming.flow import Inbox, Sink, Source
from nodewright_agent.server.streaming.spdy import SpdyConnection, SpdyStream
from nodewright_agent.server.streaming.upgrade import Limits, Sessions, alongside, spdy_answer, websocket_answer
from nodewright_agent.server.streaming.websocket import Tunnel, WebSocket
from nodewright_agent.server.streaming.wire import Wire
from nodewright_agent.server.streaming.wschannels import ChannelSink, Demultiplexer

logger = logging.getLogger(__name__)

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
_CHUNK = 64 << 10


def forward_options(request: web.Request, query: MultiMapping[str]) -> list[int]:
    """The ports that WebSocket channels are for; none are needed for the others. Raises BadQuery."""
    if not websocket.is_websocket(request) or TUNNEL in websocket.offered(request):
        return []
    return options.ports(query)


async def serve_port_forward(
    sessions: Sessions, request: web.Request, ports: list[int], pod: PodPorts
) -> web.StreamResponse:
    """Forward ports. Raises Refused when the request cannot be upgraded."""
    limits = sessions.limits
    session: Callable[[Wire], Coroutine[Any, Any, None]]
    if not websocket.is_websocket(request):
        _, headers = spdy_answer(request, (PROTOCOL,), PROTOCOL)
        session = lambda wire: _SpdyForward(wire, pod, limits).run()  # noqa: E731 - one of three
    elif not ports:
        _, headers = websocket_answer(request, (TUNNEL,))
        session = lambda wire: _SpdyForward(Tunnel(WebSocket(wire)), pod, limits).run()  # noqa: E731
    else:
        protocol, headers = websocket_answer(request, wschannels.PORTS)
        session = lambda wire: _channels(WebSocket(wire), protocol, ports, pod)  # noqa: E731
    return await sessions.run(request, headers, session)


class _SpdyForward:
    """Any number of connections, each a pair of streams with the same ``requestid``."""

    def __init__(self, wire: Wire, pod: PodPorts, limits: Limits) -> None:
        self._pod, self._limits = pod, limits
        self._connection = SpdyConnection(wire, self._accept)
        self._pairs: dict[str, dict[str, SpdyStream]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            await self._connection.run()
        finally:
            for timer in self._timers.values():
                timer.cancel()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _accept(self, stream: SpdyStream) -> str | None:
        try:
            options.port(stream.headers.get("port", ""))
        except options.BadQuery as error:
            return str(error)
        kind = stream.headers.get("streamtype", "")
        if kind not in ("data", "error"):
            return f"invalid stream type {kind!r}"
        request = stream.headers.get("requestid") or str(stream.number - (2 if kind == "data" else 0))
        pair = self._pairs.setdefault(request, {})
        if kind in pair:
            return f"{kind} stream already assigned"
        pair[kind] = stream
        if kind == "error":
            stream.inbox.discard()  # nobody reads it
        if len(pair) == 1:
            loop = asyncio.get_running_loop()
            self._timers[request] = loop.call_later(self._limits.creation, self._late, request)
            return None
        self._timers.pop(request).cancel()
        del self._pairs[request]
        self._spawn(self._forward(pair["data"], pair["error"]))
        return None

    def _late(self, request: str) -> None:
        """The other stream of a pair has not come."""
        del self._timers[request]
        for kind, stream in self._pairs.pop(request).items():
            if kind == "error":
                self._spawn(_tell(stream, f"request={request} timed out waiting for streams"))
            else:
                stream.reset()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, data: SpdyStream, error: SpdyStream) -> None:
        def close() -> None:
            data.close()
            error.close()

        port = int(data.headers["port"])
        try:
            async with _while_wanted(data):
                await forward(self._pod, port, data, data, ended=close)
        except StreamError as failure:
            logger.info("port-forward: %s", failure)
            await _tell(error, str(failure))
            data.reset()
        except ConnectionError:
            data.reset()
            error.reset()
        finally:
            data.inbox.discard()
            close()


@contextlib.asynccontextmanager
async def _while_wanted(stream: SpdyStream) -> AsyncIterator[None]:
    """Breaks off with ConnectionError once the client has reset the stream, as kubectl does when its own side ends."""

    async def watch(task: asyncio.Task[Any]) -> None:
        await stream.reset_received.wait()
        task.cancel()

    current = asyncio.current_task()
    assert current is not None
    watching = asyncio.create_task(watch(current))
    try:
        yield
    except asyncio.CancelledError:
        if stream.reset_received.is_set() and current.uncancel() == 0:
            raise ConnectionResetError("the client has reset the stream") from None
        raise
    finally:
        watching.cancel()


async def _tell(stream: SpdyStream, text: str) -> None:
    with contextlib.suppress(ConnectionError):
        await stream.write(text.encode())
    stream.close()


async def forward(
    pod: PodPorts, port: int, source: Source, sink: Sink, ended: Callable[[], object] = lambda: None
) -> None:
    """One connection to the pod, both ways, until both sides have finished.

    ``ended`` is called when the pod's side has. Raises StreamError when there is no connection, or it broke.
    """
    where = _where(pod, port)
    try:
        connection = await pod.connect(port)
    except StreamError as error:
        raise StreamError(f"{where}: {error}") from None
    with connection:
        upload = asyncio.create_task(_upload(connection, source))
        try:
            loop = asyncio.get_running_loop()
            while data := await loop.sock_recv(connection, _CHUNK):
                await sink.write(data)
                await asyncio.sleep(0)  # neither side may have to be waited for
            ended()
            await upload
        except ConnectionError:
            raise
        except OSError as error:
            raise StreamError(f"{where}: {error}") from None
        finally:
            upload.cancel()
            await asyncio.wait((upload,))


def _where(pod: PodPorts, port: int) -> str:
    return f"error forwarding port {port} to pod {pod.name}, uid {pod.uid}"


async def _upload(connection: socket.socket, source: Source) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await source.read():
            await loop.sock_sendall(connection, data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the pod's side has closed; what it had sent is still on its way to the client


async def _channels(client: WebSocket, protocol: str, ports: list[int], pod: PodPorts) -> None:
    """Two channels for each port, data and error; each begins with the port (16 bits, little endian)."""
    inboxes = [Inbox() for _ in ports]

    async def read() -> None:
        demultiplexer = Demultiplexer(protocol)
        while (piece := await client.receive()) is not None:
            try:
                found = demultiplexer.feed(piece)
            except ValueError as error:
                client.close(1007, str(error))
                return
            if found is None or found[1] is None or found[0] % 2 or found[0] // 2 >= len(inboxes):
                continue
            await inboxes[found[0] // 2].put(found[1])

    async def give_up(index: int, error: ChannelSink, text: str) -> None:
        inboxes[index].discard()
        await error.write(text.encode())

    async def one(index: int, port: int) -> None:
        data, error = (ChannelSink(client, protocol, 2 * index + kind) for kind in range(2))
        for sink in (data, error):
            await sink.write(port.to_bytes(2, "little"))
        try:
            await forward(pod, port, inboxes[index], data, ended=inboxes[index].discard)
        except StreamError as failure:
            await give_up(index, error, str(failure))
        except ConnectionError as failure:
            # The pod's; when it is the client's, this cannot be told, which ends the session.
            await give_up(index, error, f"{_where(pod, port)}: {failure}")

    async def work() -> None:
        works = [asyncio.create_task(one(index, port)) for index, port in enumerate(ports)]
        try:
            await asyncio.gather(*works)
        finally:
            for task in works:
                task.cancel()
            await asyncio.wait(works)
        client.close()
        await asyncio.wait((client.closed,), timeout=30)

    await alongside(read(), work)
