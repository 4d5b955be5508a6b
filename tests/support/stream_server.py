"""Pods that are played for kubelet's stream routes, and clients that speak SPDY and WebSocket by hand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nodewright.kube.objects import Container, ObjectMeta, Pod, PodSpec
from nodewright_agent.server.streaming.backend import StreamError, Streams
from nodewright_agent.server.streaming.kubelet import StreamRoutes
from nodewright_agent.server.streaming.spdyframes import Control, Data, Decoder, Encoder, Kind

Work = Callable[[Sequence[str], Streams], Awaitable[int]]


class PlayedContainer:
    """Does what the test says; ``killed`` tells how often a command was cancelled, or could not write any more."""

    def __init__(self) -> None:
        self.work: Work = echo
        self.killed = 0
        self.argv: list[str] = []

    async def exec(self, argv: Sequence[str], streams: Streams) -> int:
        self.argv = list(argv)
        try:
            return await self.work(argv, streams)
        except (asyncio.CancelledError, ConnectionError):
            self.killed += 1
            raise

    async def attach(self, streams: Streams) -> None:
        await self.exec([], streams)

    async def output(self, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        self.argv = list(argv)
        if argv == ["fails"]:
            raise StreamError("the container is not running")
        return (3 if argv == ["three"] else 0), b"out", b"err"


async def echo(argv: Sequence[str], streams: Streams) -> int:
    """stdin to stdout, and a word to stderr."""
    if streams.stdin is not None and streams.stdout is not None:
        while data := await streams.stdin.read():
            await streams.stdout.write(data)
    if streams.stderr is not None:
        await streams.stderr.write(b"done")
    return int(argv[0]) if argv and argv[0].isdigit() else 0


class PlayedPorts:
    """Connects to a server of the test, whatever the port."""

    name, uid = "p", "uid-p"

    def __init__(self) -> None:
        self.address: tuple[str, int] | None = None

    async def connect(self, port: int) -> socket.socket:
        if self.address is None:
            raise StreamError(f"nobody listens at {port}")
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, self.address)
        return made


class Node:
    """One pod ``ns/p`` with a running container ``c``."""

    def __init__(self) -> None:
        self.item = Pod(ObjectMeta(name="p", namespace="ns", uid="uid-p"), PodSpec(containers=[Container("c")]))
        self.main, self.network = PlayedContainer(), PlayedPorts()
        self.has_network = True

    def pod(self, namespace: str, name: str) -> Pod | None:
        return self.item if (namespace, name) == ("ns", "p") else None

    def has_uid(self, pod: Pod, uid: str) -> bool:
        return uid in ("uid-p", "uid-of-mirror")

    def container(self, pod: Pod, name: str) -> PlayedContainer | None:
        return self.main if name == "c" else None

    def ports(self, pod: Pod) -> PlayedPorts | None:
        return self.network if self.has_network else None


class Connection:
    """A client's connection; ``answer`` is the status and headers that it got."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: str) -> None:
        self.reader, self.writer, self.answer = reader, writer, answer

    @property
    def status(self) -> int:
        return int(self.answer.split()[1])

    async def body(self) -> str:
        length = next(
            line.split(":")[1] for line in self.answer.splitlines() if line.lower().startswith("content-length")
        )
        return (await self.reader.readexactly(int(length))).decode()

    async def ended(self) -> bool:
        """Whether the server closes the connection, in time."""
        async with asyncio.timeout(10):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionResetError:
                pass
        return True


class Server:
    """Where the routes are served."""

    def __init__(self, port: int, routes: StreamRoutes) -> None:
        self.port, self.routes = port, routes
        self.made: list[Connection] = []

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", "Host: x"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        self.made.append(Connection(reader, writer, answer))
        return self.made[-1]

    async def spdy(self, path: str, *protocols: str, method: str = "POST") -> Spdy:
        versions = {"X_Stream_Protocol_Version": ",".join(protocols)} if protocols else {}
        found = await self.ask(path, method, Connection="Upgrade", Upgrade="SPDY/3.1", **versions)
        assert found.status == 101, found.answer
        return Spdy(found)

    async def websocket(self, path: str, protocol: str = "") -> WebSocketClient:
        found = await self.ask(path, **websocket_headers(protocol))
        assert found.status == 101, found.answer
        return WebSocketClient(found)


def websocket_headers(protocol: str = "") -> dict[str, str]:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    headers["Sec_WebSocket_Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    return headers | ({"Sec_WebSocket_Protocol": protocol} if protocol else {})


class Spdy:
    """A SPDY client: streams by their number, what came of them, and whether they have ended."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._encoder, self._decoder = Encoder(), Decoder()
        self._next = 1
        self.data: dict[int, bytes] = {}
        self.finished: set[int] = set()
        self.resets: dict[int, int] = {}
        self.others: list[Control] = []

    def open(self, **headers: str) -> int:
        number, self._next = self._next, self._next + 2
        self.send(Control(Kind.SYN_STREAM, number, headers=headers))
        return number

    def send(self, frame: Control | Data) -> None:
        self.connection.writer.write(self._encoder.encode(frame))

    async def until(self, there: Callable[[Spdy], Any]) -> None:
        """Read until it is there; the connection's end before that is an error."""
        async with asyncio.timeout(10):
            while not there(self):
                data = await self.connection.reader.read(65536)
                assert data, f"the connection has ended; {self.data} {self.finished} {self.resets}"
                for frame in self._decoder.feed(data):
                    self._take(frame)

    def _take(self, frame: Control | Data) -> None:
        if isinstance(frame, Data):
            self.data[frame.stream] = self.data.get(frame.stream, b"") + frame.data
            if frame.fin:
                self.finished.add(frame.stream)
        elif frame.kind is Kind.RST_STREAM:
            self.resets[frame.stream] = frame.number
        else:
            self.others.append(frame)


class WebSocketClient:
    """A WebSocket client: whole messages out and in."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, data: bytes, opcode: int = 2) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 0xFE, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 0xFF, size)
        self.connection.writer.write(head + b"\0\0\0\0" + data)

    async def receive(self) -> tuple[int, bytes]:
        """Opcode and data of the next frame; the server's are never fragmented."""
        async with asyncio.timeout(10):
            first, size = await self.connection.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.connection.reader.readexactly(2 if size == 126 else 8), "big")
            return first & 15, await self.connection.reader.readexactly(size)

    async def rest(self) -> tuple[dict[int, bytes], int]:
        """What came on each channel until the close frame, and its code; the client answers it."""
        found: dict[int, bytes] = {}
        while True:
            opcode, data = await self.receive()
            if opcode == 8:
                self.send(data, opcode=8)
                return found, int.from_bytes(data[:2], "big")
            if opcode == 2 and data:
                found[data[0]] = found.get(data[0], b"") + data[1:]
