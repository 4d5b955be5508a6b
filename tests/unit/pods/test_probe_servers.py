"""HTTP probes of servers that do their worst (P07): an answer in the probe's time, of bounded size, or a failure."""

import asyncio
import resource
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from nodewright.kube.objects import Container, Probe
from nodewright_agent.pods.handlers import MAX_BODY, Answer, Outcome
from nodewright_agent.pods.probes import checks

Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]
NOBODY: Any = None
"""Commands are not asked for."""
HEAD = b"HTTP/1.1 200 OK\r\n"


def without_end(start: bytes, piece: bytes) -> Serve:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()

    return serve


def once(data: bytes, pause: float = 0.0) -> Serve:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause)

    return serve


def slowly(start: bytes, data: bytes) -> Serve:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for byte in data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.2)

    return serve


async def probed(serve: Serve) -> Answer:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the probe has hung up, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    probe = msgspec.convert({"httpGet": {"port": port, "path": "/"}, "timeoutSeconds": 1}, Probe)
    async with asyncio.timeout(60):
        answer = await checks.check(NOBODY, probe, Container(name="c"), "id", "127.0.0.1")
    server.close()
    return answer


@pytest.mark.parametrize(
    ("serve", "outcome"),
    [
        pytest.param(without_end(HEAD + b"\r\n", b"x" * 65536), Outcome.SUCCESS, id="a body without end"),
        pytest.param(
            without_end(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b"x" * 0x8000 + b"\r\n"),
            Outcome.SUCCESS,
            id="chunks without end",
        ),
        pytest.param(
            once(HEAD + b"Set-Cookie: " + b"x" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"),
            Outcome.SUCCESS,
            id="a header of 60 kB",
        ),
        pytest.param(without_end(HEAD, b"A: " + b"x" * 1000 + b"\r\n"), Outcome.FAILURE, id="headers without end"),
        pytest.param(without_end(HEAD + b"A: ", b"x" * 65536), Outcome.FAILURE, id="a header without end"),
        pytest.param(without_end(b"HTTP/1.1 200 ", b"x" * 65536), Outcome.FAILURE, id="a first line without end"),
        pytest.param(slowly(HEAD, b"A: b\r\n" * 100), Outcome.FAILURE, id="a byte now and then"),
        pytest.param(once(HEAD + b"Content-Length: 100\r\n\r\nx", 30), Outcome.UNKNOWN, id="less than it says"),
        pytest.param(once(HEAD + b"Content-Length: 100\r\n\r\nx"), Outcome.UNKNOWN, id="less, and gone"),
        pytest.param(once(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nx"), Outcome.UNKNOWN, id="less of an error"),
        pytest.param(slowly(HEAD + b"\r\n", b"x" * 100), Outcome.UNKNOWN, id="a body now and then"),
        pytest.param(once(HEAD + b"Content-Length: -1\r\n\r\n"), Outcome.FAILURE, id="a negative length"),
        pytest.param(once(b"\x00\xff\x16\x03 garbage\r\n\r\n"), Outcome.FAILURE, id="garbage"),
        pytest.param(once(b"SSH-2.0-OpenSSH_9.9\r\n"), Outcome.FAILURE, id="another protocol"),
        pytest.param(once(b""), Outcome.FAILURE, id="nothing"),
        pytest.param(
            once(b"HTTP/1.1 302 Found\r\nLocation: http://[::bad\r\nContent-Length: 0\r\n\r\n"),
            Outcome.FAILURE,
            id="a redirect to nowhere",
        ),
    ],
)
async def test_the_worst_servers(serve: Serve, outcome: Outcome) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await probed(serve)
    assert answer.outcome is outcome, answer
    assert len(answer.text) <= MAX_BODY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10, "KiB"


async def test_a_body_that_comes_in_pieces_is_read_to_its_end() -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 4\r\n\r\na")
        for byte in (b"b", b"c", b"d"):
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(byte)

    assert await probed(serve) == Answer(Outcome.SUCCESS, "abcd")
