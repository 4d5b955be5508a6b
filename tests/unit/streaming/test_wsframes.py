"""WebSocket frames and messages: RFC 6455's examples, pieces, and what ends a connection."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.server.streaming.websocket import BadHandshake, answer, choose, is_websocket
from nodewright_agent.server.streaming.wschannels import Demultiplexer
from nodewright_agent.server.streaming.wsframes import ControlFrame, Decoder, Opcode, Piece, WebSocketError, encode


def masked(opcode: int, data: bytes, *, fin: bool = True, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A client's frame."""
    if len(data) < 126:
        head = struct.pack(">BB", fin << 7 | opcode, 0x80 | len(data))
    elif len(data) < 1 << 16:
        head = struct.pack(">BBH", fin << 7 | opcode, 0x80 | 126, len(data))
    else:
        head = struct.pack(">BBQ", fin << 7 | opcode, 0x80 | 127, len(data))
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def test_the_examples_of_the_standard():
    hello = bytes.fromhex("81 85 37fa213d 7f9f4d5158")
    assert list(Decoder().feed(hello)) == [Piece(b"Hello", text=True, start=True, end=True)]
    assert encode(Opcode.TEXT, b"Hello") == bytes.fromhex("8105 48656c6c6f")
    assert encode(Opcode.BINARY, b"x" * 256)[:4] == bytes.fromhex("827e0100")
    assert encode(Opcode.BINARY, b"x" * 65536)[:10] == bytes.fromhex("827f0000000000010000")


@given(st.binary(max_size=400), st.integers(1, 7), st.integers(1, 60), st.binary(min_size=4, max_size=4))
def test_a_message_in_any_pieces(data, frames, size, mask):
    """Fragments of any size, a ping between them, read in any pieces."""
    step = len(data) // frames + 1
    parts = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    wire = b""
    for index, part in enumerate(parts):
        wire += masked(0 if index else 2, part, fin=index == len(parts) - 1, mask=mask) + masked(9, b"?", mask=mask)
    decoder = Decoder()
    found = [frame for at in range(0, len(wire), size) for frame in decoder.feed(wire[at : at + size])]
    pieces = [frame for frame in found if isinstance(frame, Piece)]
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.start for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.end for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [frame for frame in found if isinstance(frame, ControlFrame)] == [ControlFrame(Opcode.PING, b"?")] * len(
        parts
    )


def test_a_huge_frame_is_handed_on_before_it_is_whole():
    head = struct.pack(">BBQ", 0x82, 0xFF, 1 << 40) + b"\0\0\0\0"
    assert list(Decoder().feed(head + b"abc")) == [Piece(b"abc", text=False, start=True, end=False)]


@pytest.mark.parametrize(
    "wire",
    [
        bytes.fromhex("8205 48656c6c6f"),  # not masked
        masked(2, b"x")[:1] + b"\x01x",
        bytes([0xC2]) + masked(2, b"x")[1:],  # a reserved bit
        masked(3, b"x"),
        masked(11, b"x"),
        masked(9, b"x" * 126),
        masked(8, b"", fin=False),
        masked(0, b"x"),  # continues nothing
        masked(2, b"x", fin=False) + masked(2, b"x"),
        struct.pack(">BBQ", 0x82, 0xFF, 1 << 63) + b"\0\0\0\0",
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_is_no_websocket(wire):
    with pytest.raises(WebSocketError) as caught:
        list(Decoder().feed(wire))
    assert caught.value.code == 1002


class Request:
    """As much of a request as the handshake looks at."""

    def __init__(self, method: str = "GET", **headers: str) -> None:
        from multidict import CIMultiDict

        self.method = method
        self.headers = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})


GOOD = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "WebSocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_the_handshake_of_the_standard():
    request = Request(**GOOD)
    assert is_websocket(request)
    assert ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") in answer(request, "")


@pytest.mark.parametrize(
    "change",
    [
        {"Sec_WebSocket_Version": "8"},
        {"Sec_WebSocket_Key": ""},
        {"Sec_WebSocket_Key": "?"},
        {"Sec_WebSocket_Key": base64.b64encode(b"short").decode()},
    ],
)
def test_bad_handshakes(change):
    with pytest.raises(BadHandshake):
        answer(Request(**{**GOOD, **change}), "")


def test_a_websocket_is_asked_for_with_get():
    with pytest.raises(BadHandshake):
        answer(Request("POST", **GOOD), "")


def test_the_client_chooses():
    request = Request(**GOOD, Sec_WebSocket_Protocol="x, v4.channel.k8s.io,v5.channel.k8s.io")
    assert choose(request, ("v5.channel.k8s.io", "v4.channel.k8s.io")) == "v4.channel.k8s.io"
    assert choose(Request(**GOOD), ("v5.channel.k8s.io",)) == ""
    with pytest.raises(BadHandshake, match="client supports"):
        choose(request, ("y",))


def feed(protocol: str, *messages: bytes, step: int = 1000) -> list[tuple[int, bytes | None] | None]:
    demultiplexer, found = Demultiplexer(protocol), []
    for message in messages:
        for at in range(0, max(1, len(message)), step):
            data = message[at : at + step]
            found.append(demultiplexer.feed(Piece(data, False, at == 0, at + step >= len(message))))
    return found


def test_channels():
    assert feed("v4.channel.k8s.io", b"\0abc", b"\4{}", b"") == [(0, b"abc"), (4, b"{}"), None]
    assert feed("v4.channel.k8s.io", b"\0abc", step=2) == [(0, b"a"), (0, b"bc")]


def test_the_end_of_a_channel_is_of_v5():
    assert feed("v5.channel.k8s.io", b"\xff\0", b"\xff") == [(0, None), None]
    assert feed("v4.channel.k8s.io", b"\xff\0") == [(255, b"\0")]


def test_base64_channels():
    text = b"0" + base64.b64encode(b"hello world")
    whole = feed("base64.channel.k8s.io", text)
    assert whole == [(0, b"hello world")]
    pieces = feed("v4.base64.channel.k8s.io", text, step=3)
    assert b"".join(data for _, data in pieces) == b"hello world"


@pytest.mark.parametrize("message", [b"\0abc", b"0a", b"0a?==", b"0ab=c"])
def test_bad_base64_channels(message):
    with pytest.raises(ValueError, match=r"(?i)digit|base64|padding|character"):
        feed("base64.channel.k8s.io", message)
