"""Streams that a runtime serves itself: one server of our routes before another."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from nodewright_agent.server.streaming.backend import StreamError
from nodewright_agent.server.streaming.kubelet import StreamRoutes
from nodewright_agent.server.streaming.spdyframes import Data
from support.stream_server import Node, Server


class Elsewhere:
    """A container, and the ports of a pod, at a server's URLs."""

    def __init__(self) -> None:
        self.base, self.problem = "", ""
        self.asked: list[object] = []

    async def exec_url(self, argv, options):
        return self._url("exec", "/exec/ns/p/c?command=5&input=1&output=1&error=1", [*argv], options.tty)

    async def attach_url(self, options):
        return self._url("attach", "/attach/ns/p/c?output=1")

    async def url(self, ports):
        return self._url("ports", "/portForward/ns/p", *ports)

    async def output(self, argv):
        return 0, b"out", b""

    def _url(self, what, path, *words):
        self.asked.append((what, *words))
        if self.problem:
            raise StreamError(self.problem)
        return self.base + path


class Before(Node):
    """The node whose containers are elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere = Elsewhere()

    def container(self, pod, name):
        return self.elsewhere if name == "c" else None

    def ports(self, pod):
        return self.elsewhere


@pytest.fixture
async def before(server: Server) -> AsyncIterator[tuple[Server, Elsewhere]]:
    node = Before()
    node.elsewhere.base = f"http://127.0.0.1:{server.port}"
    app = web.Application()
    routes = StreamRoutes(node)
    routes.add_to(app.router)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made = Server(runner.addresses[0][1], routes)
    yield made, node.elsewhere
    for one in made.made:
        one.writer.close()
    await routes.close()
    await runner.cleanup()


async def test_spdy_goes_through(before):
    server, elsewhere = before
    client = await server.spdy("/exec/ns/p/c?command=a&input=1&output=1&error=1", "v4.channel.k8s.io")
    assert "X-Stream-Protocol-Version: v4.channel.k8s.io" in client.connection.answer
    error, stdin, stdout, stderr = (client.open(streamtype=kind) for kind in ("error", "stdin", "stdout", "stderr"))
    data = os.urandom(300_000)
    client.send(Data(stdin, data, fin=True))
    await client.until(lambda c: {error, stdout, stderr} <= c.finished)
    assert client.data[stdout] == data
    assert json.loads(client.data[error])["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]
    assert elsewhere.asked == [("exec", ["a"], False)]


async def test_websockets_go_through(before, node):
    server, elsewhere = before
    client = await server.websocket("/attach/ns/p/c?output=1", "v5.channel.k8s.io")
    assert "Sec-WebSocket-Protocol: v5.channel.k8s.io" in client.connection.answer
    found, code = await client.rest()
    assert code == 1000
    assert json.loads(found[3])["status"] == "Success"
    assert elsewhere.asked == [("attach",)]


async def test_ports_go_through(before, node):
    async def echo(reader, writer):
        writer.write(await reader.read(100))
        writer.close()

    listener = await asyncio.start_server(echo, "127.0.0.1", 0)
    node.network.address = listener.sockets[0].getsockname()
    server, elsewhere = before
    client = await server.spdy("/portForward/ns/p", "portforward.k8s.io")
    error, data = (client.open(streamtype=kind, port="80", requestid="1") for kind in ("error", "data"))
    client.send(Data(error, b"", fin=True))
    client.send(Data(data, b"through"))
    await client.until(lambda c: c.data.get(data) == b"through")
    assert elsewhere.asked == [("ports",)]
    listener.close()


async def test_what_the_runtime_refuses_is_told(before):
    server, elsewhere = before
    elsewhere.problem = "container is in CONTAINER_EXITED state"
    found = await server.ask("/exec/ns/p/c?command=a&output=1", "POST", Connection="Upgrade", Upgrade="SPDY/3.1")
    assert (found.status, await found.body()) == (500, "container is in CONTAINER_EXITED state\n")


async def test_its_streaming_server_may_refuse_too(before):
    server, _ = before
    found = await server.ask("/exec/ns/p/c?command=a&output=1", "POST")
    assert (found.status, await found.body()) == (400, "unable to upgrade: missing upgrade headers in request\n")


@pytest.mark.parametrize(
    ("base", "text"),
    [
        ("http://127.0.0.1:1", "the runtime's streaming server cannot be reached: "),
        ("https://127.0.0.1:1", "only http is spoken with it"),
    ],
)
async def test_nobody_there(before, base, text):
    server, elsewhere = before
    elsewhere.base = base
    found = await server.ask("/exec/ns/p/c?command=a&output=1", "POST", Connection="Upgrade", Upgrade="SPDY/3.1")
    assert found.status == 500
    assert text in await found.body()


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nSet-Cookie: a=b\r\n\r\n", 502, "Found\n"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", 502, "hello\n"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404, "Not Found\n"),
    ],
)
async def test_it_is_not_followed_elsewhere_and_told_no_secrets(before, answer, status, text):
    heard = []

    async def talk(reader, writer):
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    server, elsewhere = before
    elsewhere.base = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    secrets = {"Authorization": "Bearer secret", "Cookie": "secret", "Impersonate-User": "secret"}
    found = await server.ask("/exec/ns/p/c?command=a&output=1", "POST", Connection="Upgrade", **secrets)
    assert (found.status, await found.body()) == (status, text)
    assert "Location" not in found.answer
    assert "Set-Cookie" not in found.answer
    assert b"secret" not in heard[0]
    listener.close()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n\r\n", b"x" * 100_000])
async def test_what_is_no_http(before, answer):
    async def talk(reader, writer):
        await reader.read(10)
        writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    server, elsewhere = before
    elsewhere.base = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    found = await server.ask("/exec/ns/p/c?command=a&output=1", "POST", Connection="Upgrade", Upgrade="SPDY/3.1")
    assert found.status == 500
    assert "gave no answer" in await found.body()
    listener.close()


async def test_the_clients_end_is_the_runtimes(before, node):
    async def forever(argv, streams):
        await asyncio.Event().wait()
        return 0

    node.main.work = forever
    server, _ = before
    client = await server.spdy("/exec/ns/p/c?command=a&output=1", "v4.channel.k8s.io")
    for kind in ("error", "stdin", "stdout", "stderr"):
        client.open(streamtype=kind)
    async with asyncio.timeout(10):
        while not node.main.argv:  # noqa: ASYNC110 - the other server's
            await asyncio.sleep(0.01)
    client.connection.writer.close()
    async with asyncio.timeout(10):
        while not node.main.killed:  # noqa: ASYNC110 - the other server's
            await asyncio.sleep(0.01)
