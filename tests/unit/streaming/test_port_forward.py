"""port-forward on kubelet's routes: SPDY, SPDY in a WebSocket, and WebSocket channels."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from nodewright_agent.server.streaming.portforward import TUNNEL
from nodewright_agent.server.streaming.spdyframes import Control, Data, Kind
from support.stream_server import Spdy, websocket_headers

PATH = "/portForward/ns/p"


@pytest.fixture
async def upstream(node):
    """What listens in the pod: answers with what it got, in capitals, when that has ended."""
    got: list[bytes] = []

    async def serve(reader, writer):
        got.append(await reader.read())
        writer.write(got[-1].upper())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    node.network.address = server.sockets[0].getsockname()
    yield got
    server.close()
    await server.wait_closed()


class Tunnelled:
    """The messages of a WebSocket as the connection of a SPDY client."""

    def __init__(self, client) -> None:
        self._client, self.writer, self.reader = client, self, self

    def write(self, data: bytes) -> None:
        self._client.send(data)

    async def read(self, _: int) -> bytes:
        opcode, data = await self._client.receive()
        return data if opcode == 2 else b""


@pytest.fixture(params=["spdy", "tunnel"])
async def client(server, request):
    if request.param == "spdy":
        return await server.spdy(PATH, "portforward.k8s.io")
    return Spdy(Tunnelled(await server.websocket(PATH, TUNNEL)))


def pair(client: Spdy, port: str, request: str) -> tuple[int, int]:
    error = client.open(streamtype="error", port=port, requestid=request)
    client.send(Data(error, b"", fin=True))  # kubectl closes its side at once
    return client.open(streamtype="data", port=port, requestid=request), error


async def test_many_connections_at_a_time(client, upstream):
    pairs = [pair(client, "8080", str(number)) for number in range(20)]
    for data, _ in pairs:
        client.send(Data(data, b"hello %d" % data, fin=True))
    await client.until(lambda c: all(set(both) <= c.finished for both in pairs))
    assert [client.data[data] for data, _ in pairs] == [b"HELLO %d" % data for data, _ in pairs]
    assert not any(client.data[error] for _, error in pairs)


async def test_much_data_both_ways(client, upstream):
    data, error = pair(client, "80", "1")
    for _ in range(100):
        client.send(Data(data, b"x" * 60_000))
    client.send(Data(data, b"", fin=True))
    await client.until(lambda c: {data, error} <= c.finished)
    assert client.data[data] == b"X" * 6_000_000


async def test_nobody_listens(client):
    data, error = pair(client, "81", "1")
    await client.until(lambda c: error in c.finished and data in c.resets)
    assert client.data[error] == b"error forwarding port 81 to pod p, uid uid-p: nobody listens at 81"
    again, _ = pair(client, "81", "2")  # the others go on
    await client.until(lambda c: again in c.resets)


@pytest.mark.parametrize("port", ["0", "-1", "65536", "x", "", "1" * 5000])
async def test_ports_that_are_none(client, port):
    number = client.open(streamtype="error", port=port, requestid="1")
    await client.until(lambda c: number in c.resets)


async def test_streams_without_the_other_one(client):
    """Each is told after the time for creation."""
    data = client.open(streamtype="data", port="80", requestid="1")
    error = client.open(streamtype="error", port="80", requestid="2")
    wrong = client.open(streamtype="other", port="80", requestid="3")
    await client.until(lambda c: {data, wrong} <= set(c.resets) and error in c.finished)
    assert client.data[error] == b"request=2 timed out waiting for streams"


async def test_streams_that_come_twice(client, upstream):
    first = client.open(streamtype="data", port="80", requestid="1")
    twice = client.open(streamtype="data", port="80", requestid="1")
    await client.until(lambda c: twice in c.resets)
    error = client.open(streamtype="error", port="80", requestid="1")
    client.send(Data(first, b"x", fin=True))
    await client.until(lambda c: {first, error} <= c.finished)
    assert client.data[first] == b"X"


async def test_streams_without_a_request_belong_together_by_number(client, upstream):
    error = client.open(streamtype="error", port="80")
    data = client.open(streamtype="data", port="80")
    client.send(Data(data, b"x", fin=True))
    await client.until(lambda c: {data, error} <= c.finished)
    assert client.data[data] == b"X"


async def test_the_connections_of_a_client_that_is_gone_end(client, upstream, server):
    pair(client, "80", "1")
    async with asyncio.timeout(10):
        await asyncio.sleep(0.1)
        for one in server.made:
            one.writer.close()
        while upstream != [b""]:  # noqa: ASYNC110 - it is a list
            await asyncio.sleep(0.01)


async def test_a_stream_that_is_reset_ends_its_connection(client, node):
    """Although what listens in the pod would go on."""
    ended = asyncio.Event()

    async def serve(reader, writer):
        try:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.01)
                await writer.drain()
        except ConnectionError:
            ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    node.network.address = server.sockets[0].getsockname()
    data, error = pair(client, "80", "1")
    await client.until(lambda c: c.data.get(data))
    client.send(Control(Kind.RST_STREAM, data, 5))
    await client.until(lambda c: error in c.finished or error in c.resets)
    async with asyncio.timeout(10):
        await ended.wait()
    server.close()


async def test_channels(server, upstream):
    client = await server.websocket(f"{PATH}?port=80,81", "v4.channel.k8s.io")
    client.send(b"\0first")
    client.send(b"\2second")
    await asyncio.sleep(0.1)
    heads = {}
    for _ in range(4):
        _, data = await client.receive()
        heads[data[0]] = int.from_bytes(data[1:], "little")
    assert heads == {0: 80, 1: 80, 2: 81, 3: 81}


async def test_a_connection_that_breaks_does_not_end_the_other_channels(server, node):
    got = asyncio.Event()

    async def serve(reader, writer):
        if await reader.read(100) == b"break":
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.transport.abort()  # a reset
            got.set()
        else:
            writer.write(b"fine")
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    node.network.address = listener.sockets[0].getsockname()
    client = await server.websocket(f"{PATH}?port=80,81", "v4.channel.k8s.io")
    client.send(b"\0break")
    async with asyncio.timeout(10):
        await got.wait()
        await asyncio.sleep(0.1)
        client.send(b"\2more")
        found, code = await client.rest()
    listener.close()
    assert b"error forwarding port 80 to pod p, uid uid-p: [Errno 104]" in found[1]
    assert (found[2], code) == (b"\x51\0fine", 1000)


async def test_channels_to_where_nobody_listens(server):
    client = await server.websocket(f"{PATH}?port=80", "v4.channel.k8s.io")
    found, code = await client.rest()
    assert found[1] == b"\x50\0error forwarding port 80 to pod p, uid uid-p: nobody listens at 80"
    assert (found[0], code) == (b"\x50\0", 1000)


async def test_what_is_refused(server, node):
    found = await server.ask(PATH, **websocket_headers("v4.channel.k8s.io"))
    assert (found.status, await found.body()) == (400, 'query parameter "port" is required\n')
    node.has_network = False
    found = await server.ask(PATH, "POST", Connection="Upgrade", Upgrade="SPDY/3.1")
    assert (found.status, await found.body()) == (500, "failed to find sandboxID for pod p_ns\n")


async def test_too_many_streams(client, monkeypatch):
    from nodewright_agent.server.streaming import spdy

    monkeypatch.setattr(spdy, "MAX_STREAMS", 3)
    opened = [client.open(streamtype="error", port="80", requestid=str(number)) for number in range(4)]
    await client.until(lambda c: opened[3] in c.resets)
    assert client.resets == {opened[3]: 3}


async def test_lone_streams_are_forgotten(server, monkeypatch):
    """The client has not finished them, and never does."""
    from nodewright_agent.server.streaming import spdy

    monkeypatch.setattr(spdy, "MAX_STREAMS", 2)
    client = await server.spdy(PATH, "portforward.k8s.io")
    lone = [client.open(streamtype="error", port="80", requestid=str(number)) for number in range(2)]
    await client.until(lambda c: set(lone) <= c.finished)
    third = client.open(streamtype="data", port="81", requestid="3")
    ping = Control(Kind.PING, number=1)
    client.send(ping)
    await client.until(lambda c: ping in c.others)
    assert third not in client.resets


async def test_nobody_waits_for_what_is_sent_on_an_error_stream(client, upstream):
    error = client.open(streamtype="error", port="80", requestid="1")
    client.send(Data(error, b"x" * 1_000_000))
    data = client.open(streamtype="data", port="80", requestid="1")
    client.send(Data(data, b"y", fin=True))
    await client.until(lambda c: {data, error} <= c.finished)
    assert client.data[data] == b"Y"
