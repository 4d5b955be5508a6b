"""QuickPoster against servers that answer in every way a server can, and in some that it should not."""

import asyncio
import contextlib

import pytest

from nodewright.kube.config import Config
from nodewright.kube.quickpost import NO_ANSWER, NOT_SENT, QuickPoster

CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n3;x=y\r\nabc\r\n0\r\n\r\n"


class Server:
    """Answers the n-th request with the n-th script: bytes, a list of bytes sent apart, or None for hanging up."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.requests = []
        self.connections = 0
        self.asked = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.poster = QuickPoster(Config(f"http://127.0.0.1:{self.port}/prefix"), user_agent="test", connections=4)
        return self

    async def __aexit__(self, *_):
        await self.poster.close()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while self.scripts:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append((head, await reader.readexactly(length)))
                self.asked.set()
                script = self.scripts.pop(0)
                if script is None:
                    break
                for part in script if isinstance(script, list) else [script]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
                if b"connection: close" in (script if isinstance(script, bytes) else b"").lower():
                    break
        writer.close()

    async def post(self, body=b"{}", **more):
        return await self.poster.post("/x", body, **more)


async def test_a_post_as_it_is_on_the_wire():
    async with Server(CREATED) as server:
        assert await server.post(b'{"a":1}') == 201
        ((head, body),) = server.requests
        assert head.startswith(b"POST /prefix/x HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"Content-Type: application/json\r\n" in head
        assert body == b'{"a":1}'


@pytest.mark.parametrize(
    "answer",
    [
        CREATED,
        CHUNKED,
        [CREATED[:10], CREATED[10:40], CREATED[40:]],
        [CHUNKED[i : i + 1] for i in range(len(CHUNKED))],
        b"HTTP/1.1 100 Continue\r\n\r\n" + CREATED,
        [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", CREATED],
    ],
    ids=["length", "chunked", "in parts", "byte by byte", "interim", "early hints"],
)
async def test_connections_are_used_again(answer):
    async with Server(answer, answer, CREATED) as server:
        assert [await server.post() for _ in range(3)] == [201, 201, 201]
        assert server.connections == 1


@pytest.mark.parametrize(("answer", "body"), [(CREATED, b"{}"), (CHUNKED, b"{}abc")])
async def test_the_body_of_an_answer(answer, body):
    no_content = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with Server([answer[:30], answer[30:-3], answer[-3:]], no_content) as server:
        got = await server.poster.ask("DELETE", "/x", b"{}", accept="application/json;as=Y")
        assert (got.status, got.body) == (201, body)
        got = await server.poster.ask("PUT", "/x", b"{}")
        assert (got.status, got.body) == (204, b"")
        (first, _), (second, _) = server.requests
        assert first.startswith(b"DELETE /prefix/x HTTP/1.1\r\n")
        assert b"\r\nAccept: application/json;as=Y\r\n" in first
        assert b"\r\nAccept: application/json\r\n" in second
        assert server.connections == 1


async def test_refusals_give_their_status_and_keep_the_connection():
    refusal = b"HTTP/1.1 409 Conflict\r\nContent-Length: 8\r\n\r\nconflict"
    async with Server(refusal, CREATED) as server:
        assert [await server.post(), await server.post()] == [409, 201]
        assert server.connections == 1


async def test_a_connection_that_the_server_closes_is_not_used_again():
    closing = b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with Server(closing, CREATED) as server:
        assert [await server.post(), await server.post()] == [201, 201]
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 nonsense\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        CREATED + CREATED,
        b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
        [CREATED[:30], b""],
    ],
)
async def test_what_is_no_answer_leaves_the_fate_open(answer):
    scripts = [answer, CREATED] if answer != [CREATED[:30], b""] else [CREATED[:30]]
    async with Server(*scripts) as server:
        assert await server.post(timeout=5) == NO_ANSWER
        if len(scripts) > 1:
            assert await server.post() == 201
            assert server.connections == 2


async def test_nobody_there():
    async with Server() as server:
        port = server.port
    poster = QuickPoster(Config(f"http://127.0.0.1:{port}"), user_agent="test", connections=1)
    assert await poster.post("/x", b"{}") == NO_ANSWER
    assert (await poster.ask("POST", "/x", b"{}")).status == NOT_SENT


async def test_a_silent_server():
    async with Server([b""], CREATED) as server:
        assert await server.post(timeout=0.05) == NO_ANSWER
        assert await server.post() == 201


async def test_a_cancelled_post_does_not_leave_its_answer_to_the_next():
    async with Server([b""], CREATED) as server:
        task = asyncio.create_task(server.post())
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await server.post() == 201
        assert server.connections == 2


async def test_no_more_connections_than_allowed():
    async with Server(*[CREATED] * 40) as server:
        assert set(await asyncio.gather(*(server.post() for _ in range(40)))) == {201}
        assert server.connections <= 4


async def test_behind_a_proxy_it_keeps_out():
    poster = QuickPoster(Config("http://127.0.0.1:1", proxy_url="http://127.0.0.1:2"), user_agent="t", connections=1)
    assert await poster.post("/x", b"{}") == NO_ANSWER
    assert (await poster.ask("POST", "/x", b"{}")).status == NOT_SENT
