import gzip
import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.runtime.images.compression import PIECE, SniffingDecoder
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageError


def decode(data, step=7000):
    decoder = SniffingDecoder()
    try:
        out = b"".join(piece for at in range(0, len(data), step) for piece in decoder.feed(data[at : at + step]))
        decoder.finish()
        return out
    finally:
        decoder.close()


def zstd(data, *options):
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("the zstd program is not installed")
    return subprocess.run([program, "-qc", *options], input=data, capture_output=True, check=True).stdout


CONTENT = os.urandom(50_000) + b"text " * 20_000


@pytest.mark.parametrize("step", [1, 5, 4096, 10**6])
def test_round_trips(step):
    content = CONTENT if step > 10 else CONTENT[:3000]
    assert decode(content, step) == content
    assert decode(gzip.compress(content), step) == content
    assert decode(gzip.compress(content[:100]) + gzip.compress(content[100:]), step) == content
    assert decode(gzip.compress(content) + bytes(700), step) == content
    assert decode(zstd(content), step) == content
    assert decode(zstd(content[:100]) + zstd(content[100:]), step) == content


@given(st.binary(min_size=6, max_size=2000), st.integers(1, 600))
def test_gzip_in_any_pieces(content, step):
    assert decode(gzip.compress(content), step) == content


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        gzip.compress(CONTENT)[:-1],
        gzip.compress(CONTENT)[:1000],
        gzip.compress(CONTENT) + b"garbage",
        gzip.compress(CONTENT) + b"\x1f\x8bgarbage",
        gzip.compress(CONTENT) + b"\x1f",
        b"\x1f\x8b\x08\x00" + bytes(100),
        b"\xfd7zXZ\x00" + bytes(100),
        b"BZh9" + bytes(100),
        b"\x28\xb5\x2f\xfd" + bytes(100),
    ],
)
def test_broken_streams(data):
    for step in (3, 10**6):
        with pytest.raises(ErrImagePull):
            decode(data, step)


def test_zstd_that_is_cut_or_wants_a_huge_window():
    packed = zstd(CONTENT)
    with pytest.raises(ErrImagePull, match="truncated"):
        decode(packed[:-5])
    for exponent, good in ((17, True), (21, False)):  # windows of 2^27 and 2^31 bytes
        frame = b"\x28\xb5\x2f\xfd\x00" + bytes([exponent << 3]) + (5 << 3 | 1).to_bytes(3, "little") + b"hello"
        if good:
            assert decode(frame) == b"hello"
        else:
            with pytest.raises(ErrImagePull, match="memory"):
                decode(frame)


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, 9), zstd])
def test_bombs_come_in_small_pieces(pack):
    bomb = pack(bytes(64 << 20))
    assert len(bomb) < 200_000
    decoder = SniffingDecoder()
    total = 0
    for piece in decoder.feed(bomb):
        assert len(piece) <= PIECE
        total += len(piece)
    decoder.finish()
    decoder.close()
    assert total == 64 << 20


@given(st.binary(max_size=300))
def test_arbitrary_bytes_end_in_content_or_an_image_error(data):
    for prefix in (b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"):
        try:
            decode(prefix + data, 50)
        except ImageError:
            pass
