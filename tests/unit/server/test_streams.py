"""Streams on the agent's own server: TLS, rights, long commands, and the server's end."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from nodewright_agent.server.server import KubeletServer

PATH = "/exec/ns/p/c?command=0&input=1&output=1"


async def connect(caller, path):
    return await caller.session.ws_connect(caller.base + path, protocols=["v5.channel.k8s.io"])


async def test_a_command_over_tls(admin):
    async with await connect(admin, PATH.replace("=0", "=3")) as client:
        await client.send_bytes(b"\0" + b"x" * 1_000_000)
        await client.send_bytes(b"\xff\0")
        got = {1: b"", 3: b""}
        async for message in client:
            assert message.type is WSMsgType.BINARY
            got[message.data[0]] += message.data[1:]
    assert got[1] == b"x" * 1_000_000
    assert json.loads(got[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_a_command_of_100_kb(admin, node):
    word = "x" * 100_000
    async with await connect(admin, f"/exec/ns/p/c?output=1&command=0&command={word}") as client:
        while (await client.receive()).type is WSMsgType.BINARY:
            pass
    assert node.main.argv == ["0", word]


@pytest.mark.parametrize("path", ["/exec/ns/p/c", "/attach/ns/p/c", "/portForward/ns/p", "/run/ns/p/c"])
async def test_who_may_not(call, authority, reviews, node, path):
    """It is nodes/proxy that must be allowed, with the verb of the method."""
    caller = call(authority.issue("somebody"))
    reviews.rules |= {("somebody", "get", "pods"), ("somebody", "get", "proxy")}
    status, text = await caller.get(path + "?output=1&cmd=0", method="POST")
    assert (status, node.main.argv) == (403, [])
    assert "verb=create, resource=nodes, subresource(s)=[proxy]" in text


async def test_a_path_with_escapes_is_none(admin, node):
    for path in ("/exec/ns/p/%63?output=1", "/exec/ns/p/../p/c?output=1", "/run//ns/p/c?cmd=0"):
        assert (await admin.get(path, method="POST"))[0] == 404
    assert node.main.argv == []


async def test_a_server_that_stops_ends_the_sessions(server: KubeletServer, admin, node):
    started = asyncio.Event()

    async def forever(argv, streams):
        started.set()
        await asyncio.Event().wait()
        return 0

    node.main.work = forever
    async with await connect(admin, PATH) as client:
        await started.wait()
        await server.stop()
        assert node.main.killed == 1
        while (await client.receive()).type not in (WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR):
            pass


async def test_a_pod_that_is_not_there(admin):
    with pytest.raises(WSServerHandshakeError) as caught:
        await connect(admin, "/exec/ns/other/c?output=1")
    assert caught.value.status == 404
