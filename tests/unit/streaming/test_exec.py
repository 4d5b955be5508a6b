"""exec, attach and run on kubelet's routes, over SPDY and WebSocket, and clients that do not behave."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest

from nodewright_agent.server.streaming.backend import StreamError
from nodewright_agent.server.streaming.spdyframes import Control, Data, Kind
from support.stream_server import websocket_headers

ALL = "/exec/ns/p/c?command=0&input=1&output=1&error=1"


async def wait(there) -> None:
    async with asyncio.timeout(10):
        while not there():  # noqa: ASYNC110 - things outside of the loop's reach, too
            await asyncio.sleep(0.01)


async def forever(argv, streams) -> int:
    await asyncio.Event().wait()
    return 0


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("uid", ["", "uid-p/", "uid-of-mirror/"])
async def test_over_spdy(server, node, method, uid):
    path = f"/exec/ns/p/{uid}c?command=5&command=a%20b&input=1&output=1&error=1"
    client = await server.spdy(path, "v4.channel.k8s.io", method=method)
    error, stdin, stdout, stderr = (client.open(streamtype=kind) for kind in ("error", "stdin", "stdout", "stderr"))
    client.send(Data(stdin, b"hello "))
    client.send(Data(stdin, b"you", fin=True))
    await client.until(lambda c: {error, stdout, stderr} <= c.finished)
    assert (client.data[stdout], client.data[stderr]) == (b"hello you", b"done")
    status = json.loads(client.data[error])
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]
    assert node.main.argv == ["5", "a b"]
    assert node.main.killed == 0


@pytest.mark.parametrize(
    ("protocols", "chosen", "text"),
    [
        (("v4.channel.k8s.io", "v3.channel.k8s.io"), "v4.channel.k8s.io", b'{"metadata":{},"status":"Success"}'),
        (("v2.channel.k8s.io",), "v2.channel.k8s.io", b""),
        ((), "channel.k8s.io", b""),
    ],
)
async def test_older_protocols_of_spdy(server, protocols, chosen, text):
    client = await server.spdy("/exec/ns/p/c?command=0&error=1", *protocols)
    assert f"X-Stream-Protocol-Version: {chosen}" in client.connection.answer
    error, stderr = client.open(streamtype="error"), client.open(streamtype="stderr")
    await client.until(lambda c: {error, stderr} <= c.finished)
    assert client.data[error] == text


async def test_over_websocket(server):
    client = await server.websocket(ALL.replace("command=0", "command=7"), "v5.channel.k8s.io")
    assert await client.receive() == (2, b"\1")
    client.send(b"\0hello")
    client.send(b"\xff\0")
    found, code = await client.rest()
    assert (found[1], found[2], code) == (b"hello", b"done", 1000)
    assert json.loads(found[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert await client.connection.ended()


async def test_a_message_of_megabytes(server):
    client = await server.websocket("/exec/ns/p/c?command=0&input=1&output=1", "v5.channel.k8s.io")
    body = bytes(range(256)) * 20_000
    client.send(b"\0" + body)
    client.send(b"\xff\0")
    found, _ = await client.rest()
    assert found[1] == body


@pytest.mark.parametrize("protocol", ["", "channel.k8s.io", "v4.channel.k8s.io"])
async def test_a_failure_in_every_protocol(server, node, protocol):
    async def fails(argv, streams):
        raise StreamError("no such file")

    node.main.work = fails
    client = await server.websocket("/exec/ns/p/c?command=x&output=1", protocol)
    found, _ = await client.rest()
    text = "error executing command in container: no such file"
    if protocol.startswith("v4"):
        assert json.loads(found[3])["details"]["causes"] == [{"message": text}]
    else:
        assert found[3].decode() == f"Internal error occurred: {text}"


async def test_a_terminal(server, node):
    sizes = []

    async def work(argv, streams):
        assert streams.tty
        assert streams.stderr is None
        while (size := await streams.sizes.next()) is not None:
            sizes.append(size)
            await streams.stdout.write(b"%d" % size[0])
        return 0

    node.main.work = work
    path = "/exec/ns/p/c?command=x&input=1&output=1&error=1&tty=1"
    client = await server.spdy(path, "v4.channel.k8s.io")
    error, _, stdout, resize = (client.open(streamtype=kind) for kind in ("error", "stdin", "stdout", "resize"))
    for width in (80, 90):
        client.send(Data(resize, b'{"Width":%d,"Height":24}' % width))
        await client.until(lambda c, width=width: c.data.get(stdout, b"").endswith(b"%d" % width))
    client.send(Data(resize, b"", fin=True))
    await client.until(lambda c: error in c.finished)
    assert sizes == [(80, 24), (90, 24)]


async def test_attach(server, node):
    client = await server.websocket("/attach/ns/p/c?input=1&output=1", "v5.channel.k8s.io")
    client.send(b"\0hi")
    client.send(b"\xff\0")
    found, _ = await client.rest()
    assert (found[1], json.loads(found[3])["status"]) == (b"hi", "Success")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/exec/ns/p/c?command=x", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/ns/q/c?output=1", 404, "pod does not exist"),
        ("/exec/ns/p/d?output=1", 500, 'container not found ("d")'),
        ("/exec/ns/p/uid-other/c?output=1", 500, 'container not found ("c")'),
        ("/exec/ns/p/c?output=1", 400, "unable to upgrade: missing upgrade headers in request"),
        ("/attach/ns/q/c?output=1", 404, "pod does not exist"),
        ("/attach/ns/p/d?output=1", 500, "container d not found in pod p_ns"),
        ("/portForward/ns/q", 404, "pod does not exist"),
        ("/portForward/ns/p/other", 404, "pod not found"),
    ],
)
async def test_what_is_refused(server, path, status, text):
    for method in ("GET", "POST"):
        found = await server.ask(path, method)
        assert (found.status, await found.body()) == (status, text + "\n")


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X_Stream_Protocol_Version": "v9"}, 403, "supports [v9]"),
        (websocket_headers("v9.channel.k8s.io"), 400, "bad protocol"),
        ({**websocket_headers(), "Sec_WebSocket_Version": "8"}, 400, "bad handshake"),
    ],
)  # fmt: skip
async def test_handshakes_that_are_refused(server, headers, status, text):
    found = await server.ask("/exec/ns/p/c?command=x&output=1", **headers)
    assert found.status == status
    assert text in await found.body()


async def test_run(server, node):
    found = await server.ask("/run/ns/p/c?cmd=a+b%20c", "POST")
    assert (found.status, await found.body(), node.main.argv) == (200, "outerr", ["a", "b", "c"])
    found = await server.ask("/run/ns/p/uid-p/c?cmd=three", "POST")
    assert (found.status, await found.body()) == (500, "command 'three' exited with 3: err\n")
    found = await server.ask("/run/ns/p/c?cmd=fails", "POST")
    assert (found.status, await found.body()) == (500, "the container is not running\n")
    assert (await server.ask("/run/ns/p/d?cmd=x", "POST")).status == 500
    assert (await server.ask("/run/ns/p/c?cmd=x", "GET")).status == 405


@pytest.mark.parametrize("way", ["close", "reset", "garbage", "close frame"])
@pytest.mark.parametrize("kind", ["spdy", "websocket"])
async def test_the_command_of_a_client_that_is_gone_is_killed(server, node, kind, way):
    node.main.work = forever
    if kind == "spdy":
        client = await server.spdy(ALL, "v4.channel.k8s.io")
        for name in ("error", "stdin", "stdout", "stderr"):
            client.open(streamtype=name)
    else:
        client = await server.websocket(ALL, "v5.channel.k8s.io")
    await wait(lambda: node.main.argv)
    writer = client.connection.writer
    match way:
        case "close":
            writer.close()
        case "reset":
            writer.transport.abort()
        case "garbage":
            writer.write(b"\xff" * 100)
        case _ if kind == "spdy":
            writer.write_eof()
        case _:
            client.send(b"\x03\xe8", opcode=8)
    await wait(lambda: node.main.killed)
    if way == "garbage":
        assert await client.connection.ended()


async def test_a_client_from_which_nothing_is_read_is_missed_all_the_same(server, node):
    """It sends more than anybody takes, so that reading from it has stopped, and goes."""
    node.main.work = forever
    client = await server.websocket(ALL, "v5.channel.k8s.io")
    for _ in range(12):
        client.send(b"\0" + b"x" * 65536)
    await client.connection.writer.drain()
    await wait(lambda: node.main.argv)
    await asyncio.sleep(0.1)
    client.connection.writer.close()
    await wait(lambda: node.main.killed)


async def test_a_client_that_takes_nothing_holds_the_command_back(server, node):
    written = 0

    async def flood(argv, streams):
        nonlocal written
        while True:
            await streams.stdout.write(b"x" * 65536)
            written += 65536

    node.main.work = flood
    client = await server.websocket("/exec/ns/p/c?command=x&output=1", "v5.channel.k8s.io")
    await wait(lambda: written)
    before = -1
    while written != before:  # until all buffers on the way are full
        before = written
        await asyncio.sleep(0.3)
    assert written < 64 << 20
    client.connection.writer.close()
    await wait(lambda: node.main.killed)


async def test_streams_that_are_never_opened(server, node):
    client = await server.spdy(ALL, "v4.channel.k8s.io")
    client.open(streamtype="error")
    assert await client.connection.ended()
    assert node.main.argv == []


async def test_streams_that_nobody_asked_for_are_refused(server):
    client = await server.spdy("/exec/ns/p/c?command=0&output=1", "v4.channel.k8s.io")
    error, wrong, nameless = client.open(streamtype="error"), client.open(streamtype="stdin"), client.open()
    twice, stdout = client.open(streamtype="error"), client.open(streamtype="stdout")
    await client.until(lambda c: {error, stdout} <= c.finished)
    assert set(client.resets) == {wrong, nameless, twice}


async def test_streams_with_wrong_numbers(server):
    client = await server.spdy("/exec/ns/p/c?command=0&output=1", "v4.channel.k8s.io")
    for number in (2, 5, 3):
        client.send(Control(Kind.SYN_STREAM, number, headers={"streamtype": "error"}))
    await client.until(lambda c: {2, 3} <= set(c.resets))
    assert [frame.stream for frame in client.others] == [5]


async def test_pings_are_answered(server):
    client = await server.spdy(ALL, "v4.channel.k8s.io")
    client.send(Control(Kind.PING, number=3))
    await client.until(lambda c: c.others)
    assert client.others == [Control(Kind.PING, number=3)]
    other = await server.websocket(ALL, "v5.channel.k8s.io")
    await other.receive()
    for number in range(500):  # a flood of them, too
        other.send(b"%d" % number, opcode=9)
    assert [await other.receive() for _ in range(500)] == [(10, b"%d" % number) for number in range(500)]


async def test_channels_that_are_none(server):
    client = await server.websocket(ALL, "v5.channel.k8s.io")
    for channel in (1, 2, 3, 9, 254):
        client.send(bytes([channel]) + b"x")
    client.send(b"")
    client.send(b"\xff")
    client.send(b"\xff\x09")
    client.send(b"\0fine")
    client.send(b"\xff\0")
    found, _ = await client.rest()
    assert found[1] == b"fine"


async def test_a_frame_that_is_not_masked(server, node):
    client = await server.websocket(ALL, "v5.channel.k8s.io")
    await client.receive()
    client.connection.writer.write(b"\x82\x05\0abcd")
    opcode, data = await client.receive()
    assert (opcode, struct.unpack(">H", data[:2])) == (8, (1002,))
    assert await client.connection.ended()
    await wait(lambda: node.main.killed)


async def test_too_many_sessions(server, node):
    node.main.work = forever
    for _ in range(3):
        await server.websocket(ALL, "v5.channel.k8s.io")
    found = await server.ask(ALL, **websocket_headers("v5.channel.k8s.io"))
    assert found.status == 429
    assert "Retry-After: 10" in found.answer
    server.made[0].writer.close()
    await wait(lambda: node.main.killed)
    await asyncio.sleep(0.05)
    assert (await server.ask(ALL, **websocket_headers())).status == 101


async def test_a_server_that_stops_kills_what_runs(server, node):
    node.main.work = forever
    client = await server.websocket(ALL, "v5.channel.k8s.io")
    await wait(lambda: node.main.argv)
    await server.routes.close()
    assert node.main.killed == 1
    assert await client.connection.ended()


async def test_the_connection_is_of_no_further_use(server):
    """After a session there is no second request on the connection."""
    client = await server.websocket("/exec/ns/p/c?command=0&output=1", "v5.channel.k8s.io")
    await client.rest()
    client.connection.writer.write(b"GET /exec HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await client.connection.ended()
