"""SPDY/3.1 frames: to bytes and back, in any pieces, and what is refused."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.server.streaming.spdyframes import (
    DICTIONARY,
    MAX_CONTROL,
    MAX_HEADERS,
    Control,
    Data,
    Decoder,
    Encoder,
    Kind,
    SpdyError,
)


def control(kind: int, body: bytes, version: int = 3, flags: int = 0) -> bytes:
    return struct.pack(">II", 1 << 31 | version << 16 | kind, flags << 24 | len(body)) + body


def block(*pairs: tuple[str, str], count: int | None = None, behind: bytes = b"") -> bytes:
    words = b"".join(struct.pack(">I", len(word)) + word.encode() for pair in pairs for word in pair)
    return struct.pack(">I", len(pairs) if count is None else count) + words + behind


def deflated(plain: bytes, level: int = 9) -> bytes:
    compressor = zlib.compressobj(level, zdict=DICTIONARY)
    return compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)


def syn_stream(headers: bytes, stream: int = 1) -> bytes:
    return control(1, struct.pack(">I6x", stream) + headers)


def decoded(data: bytes) -> list[Data | Control]:
    return list(Decoder().feed(data))


def test_the_dictionary_is_that_of_the_draft():
    # The draft's dictionary has this Adler-32, which every zlib header made with it carries.
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_bytes_of_frames():
    encoder = Encoder()
    assert encoder.encode(Data(3, b"hi", fin=True)) == bytes.fromhex("00000003 01000002 6869")
    assert encoder.encode(Control(Kind.RST_STREAM, 5, 8)) == bytes.fromhex("80030003 00000008 00000005 00000008")
    assert encoder.encode(Control(Kind.PING, number=7)) == bytes.fromhex("80030006 00000004 00000007")
    assert encoder.encode(Control(Kind.GOAWAY, 5, 1)) == bytes.fromhex("80030007 00000008 00000005 00000001")


HEADERS = st.dictionaries(
    st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20), st.text(st.characters(max_codepoint=255))
)
FRAMES = st.one_of(
    st.builds(Data, st.integers(1, 1 << 20), st.binary(max_size=300), st.booleans()),
    st.builds(
        Control,
        st.sampled_from([Kind.SYN_STREAM, Kind.SYN_REPLY, Kind.HEADERS]),
        st.integers(1, (1 << 31) - 1),
        st.just(0),
        st.booleans(),
        HEADERS,
    ),
    st.builds(
        Control,
        st.sampled_from([Kind.RST_STREAM, Kind.GOAWAY, Kind.WINDOW_UPDATE]),
        st.integers(1, 1 << 20),
        st.integers(0, 1 << 20),
    ),
    st.builds(lambda number: Control(Kind.PING, number=number), st.integers(0, (1 << 32) - 1)),
)


@given(st.lists(FRAMES, max_size=8), st.integers(1, 50))
def test_back_again_in_pieces_of_any_size(frames, size):
    encoder, decoder = Encoder(), Decoder()
    wire = b"".join(encoder.encode(frame) for frame in frames)
    found = [frame for at in range(0, len(wire), size) for frame in decoder.feed(wire[at : at + size])]
    assert merged(found) == merged(frames)


def merged(frames):
    """Neighbours of one stream together: DATA comes in the pieces in which it was read."""
    found: list[Data | Control] = []
    for frame in frames:
        last = found[-1] if found else None
        if isinstance(frame, Data) and isinstance(last, Data) and last.stream == frame.stream and not last.fin:
            found[-1] = Data(frame.stream, last.data + frame.data, frame.fin)
        else:
            found.append(frame)
    return found


def test_a_large_frame_is_handed_on_before_it_is_whole():
    decoder = Decoder()
    head = struct.pack(">II", 1, 1 << 24 | 0xFFFFFF)
    assert list(decoder.feed(head + b"x" * 100)) == [Data(1, b"x" * 100)]
    assert list(decoder.feed(b"y" * 7)) == [Data(1, b"y" * 7)]


def test_what_is_to_be_ignored_is():
    settings = control(4, struct.pack(">I", 0))
    assert decoded(control(77, b"abc") + settings) == [Control(Kind.SETTINGS)]


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (struct.pack(">II", 0, 1) + b"x", "without a stream"),
        (syn_stream(deflated(block()), stream=0), "without a stream"),
        (control(1, b"", version=2), "version 2"),
        (struct.pack(">II", 1 << 31 | 3 << 16 | 1, MAX_CONTROL + 1), "control frame of"),
        (control(1, b"abc"), "too short"),
        (control(3, b"abc"), "too short"),
        (control(6, b""), "too short"),
        (syn_stream(b"no zlib at all"), "header block"),
        (syn_stream(deflated(b"")), "too short"),
        (syn_stream(deflated(block(("a", "b"), count=2))), "too short"),
        (syn_stream(deflated(block(count=0xFFFFFFFF))), "too short"),
        (syn_stream(deflated(struct.pack(">II", 1, 0xFFFFFFFF) + b"a")), "too short"),
        (syn_stream(deflated(block(("a", "b"), ("A", "c")))), "given twice"),
        (syn_stream(deflated(block(("", "b")))), "without a name"),
        (syn_stream(deflated(block(("a", "b"), behind=b"x"))), "behind the last"),
        (b"\xff" * 64, "control frame of"),
    ],
)
def test_what_is_no_spdy(wire, text):
    with pytest.raises(SpdyError, match=text):
        decoded(wire)


def test_a_header_bomb():
    bomb = syn_stream(deflated(block(("a", "b" * (MAX_HEADERS + 1)))))
    assert len(bomb) < 2000
    with pytest.raises(SpdyError, match="too large"):
        decoded(bomb)


def test_a_stream_of_headers_that_ends_early():
    compressor = zlib.compressobj(zdict=DICTIONARY)
    ended = compressor.compress(block(("a", "b"))) + compressor.flush(zlib.Z_FINISH)
    with pytest.raises(SpdyError, match="ends the compressed stream"):
        decoded(syn_stream(ended))


def test_too_much_data_for_one_frame():
    with pytest.raises(ValueError, match="bytes"):
        Encoder().encode(Data(1, b"x" * (1 << 24)))
