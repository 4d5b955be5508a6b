"""The gRPC health check against a server that speaks raw frames, and the part of HPACK that it needs."""

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube.objects import Container, GRPCAction, Probe
from nodewright_agent.pods.handlers import Outcome
from nodewright_agent.pods.probes import grpc, hpack
from nodewright_agent.pods.probes.checks import check
from nodewright_agent.runtime.spec import ExecResult

OK, TRAILERS = [(":status", "200"), ("content-type", "application/grpc")], [("grpc-status", "0")]


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(body: bytes) -> bytes:
    return struct.pack(">BI", 0, len(body)) + body


def answer(status: int = 1, trailers: list[tuple[str, str]] = TRAILERS) -> bytes:
    body = bytes([8, status]) if status else b""
    return (
        frame(4, 0, b"", 0)
        + frame(1, 4, hpack.encode(OK))
        + frame(6, 0, b"12345678", 0)
        + frame(0, 8, b"\x02" + message(body) + b"\0\0")
        + frame(1, 5, hpack.encode(trailers))
    )


def refused(code: int, text: str) -> bytes:
    return frame(4, 0, b"", 0) + frame(1, 5, hpack.encode([*OK, ("grpc-status", str(code)), ("grpc-message", text)]))


class NoExec:
    async def exec(self, cid: str, argv: object, *, timeout: object = None, max_output: int = 0) -> ExecResult:
        raise AssertionError("nothing to run")


async def probe(reply: bytes | None, service: str | None = None, hang: bool = False) -> tuple[Outcome, str, bytes]:
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.read(1 << 16))
        if hang:
            await reader.read()
        writer.write(reply or b"")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        spec = Probe(grpc=GRPCAction(port=port, service=service))
        found = await check(NoExec(), spec, Container(name="a"), "id", "127.0.0.1")
        return found.outcome, found.text, bytes(got)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("reply", "outcome", "text"),
    [
        (answer(1), Outcome.SUCCESS, "service healthy"),
        (answer(0), Outcome.FAILURE, 'service unhealthy (responded with "UNKNOWN")'),
        (answer(2), Outcome.FAILURE, 'service unhealthy (responded with "NOT_SERVING")'),
        (answer(3), Outcome.FAILURE, 'service unhealthy (responded with "SERVICE_UNKNOWN")'),
        (
            refused(5, "unknown%20service"),
            Outcome.FAILURE,
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
        ),
        (
            refused(12, "no"),
            Outcome.FAILURE,
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no",
        ),
        (refused(4, ""), Outcome.FAILURE, "timeout: health rpc did not complete within 1s"),
        (frame(1, 5, hpack.encode([(":status", "404")])), Outcome.FAILURE, "grpc health protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Outcome.FAILURE, "the server does not speak HTTP/2"),
        (b"", Outcome.FAILURE, "connection closed before server preface received"),
        (frame(7, 0, struct.pack(">II", 0, 0), 0), Outcome.FAILURE, "the server is going away"),
        (frame(3, 0, struct.pack(">I", 7)), Outcome.FAILURE, "RST_STREAM"),
        (frame(1, 5, b"\xff"), Outcome.FAILURE, "Internal"),
        (frame(0, 0, b"x" * 16000) * 5, Outcome.FAILURE, "the server sends too much"),
    ],
)
def test_what_a_server_answers(reply, outcome, text):
    found = asyncio.run(probe(reply))
    assert found[0] is outcome
    assert text in found[1]


def test_what_is_asked():
    _, _, got = asyncio.run(probe(answer(), "web"))
    assert got.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    for word in (b"/grpc.health.v1.Health/Check", b"kube-probe/1.36", b"application/grpc", b"1000m"):
        assert word in got
    assert got.endswith(message(b"\x0a\x03web"))


def test_a_server_that_does_not_answer_in_time():
    found = asyncio.run(probe(None, hang=True))
    assert found[:2] == (Outcome.FAILURE, "timeout: health rpc did not complete within 1s")


def test_trailers_in_two_frames():
    block = hpack.encode([("grpc-message", "x" * 40), *TRAILERS])
    reply = frame(1, 4, hpack.encode(OK)) + frame(0, 0, message(b"\x08\x01"))
    reply += frame(1, 1, block[:20]) + frame(9, 4, block[20:])
    assert asyncio.run(probe(reply))[0] is Outcome.SUCCESS


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        # RFC 7541, C.4.1, C.6.1 (without the dynamic table) and C.2.1
        ("828684418cf1e3c2e5f23a6ba0ab90f4ff", {}),
        ("488264025885aec3771a4b", {":status": "302"}),
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", {"custom-key": "custom-header"}),
        ("2088", {":status": "200"}),
        ("408825a849e95ba97d7f8925a849e95bb8e8b4bf", {"custom-key": "custom-value"}),
    ],
)
def test_header_blocks_of_the_standard(block, fields):
    assert hpack.decode(bytes.fromhex(block)) == fields


@pytest.mark.parametrize("block", ["be", "80", "4002", "0083fffffff0", "00ff", "7fffffffffff01", "008101"])
def test_bad_header_blocks_are_refused(block):
    with pytest.raises(hpack.HpackError):
        hpack.decode(bytes.fromhex(block))


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_fields_survive(fields):
    assert hpack.decode(hpack.encode(list(fields.items()))) == fields


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data):
    try:
        hpack.decode(data)
    except hpack.HpackError:
        pass
    reply = grpc._Answer()
    for kind in (0, 1, 3, 4, 6, 7, 9, 77):
        for flags in (0, 1, 5, 0x2D):
            try:
                grpc._take(reply, kind, flags, 1, data)
            except grpc.CallError:
                pass
    try:
        grpc.outcome({"grpc-status": "0"}, data)
    except grpc.CallError:
        pass
