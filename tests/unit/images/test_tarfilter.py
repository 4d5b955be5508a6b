import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.runtime.images.errors import ImageCorrupt, ImageError
from nodewright_agent.runtime.images.model import Limits
from nodewright_agent.runtime.images.tarfilter import TarFilter, parse_pax
from support.image_makers import entry, folder, hardlink, raw_header, symlink, tar

END = bytes(1024)


def run(data, step=1000, limits=None):
    tarfilter = TarFilter(limits or Limits())
    out = b"".join(part for at in range(0, len(data), step) for part in tarfilter.feed(data[at : at + step]))
    return out + tarfilter.finish(), tarfilter


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: (archive.extractfile(member).read() if member.isreg() else None) for member in archive}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 512, 100_000])
def test_ordinary_archives_pass_unchanged(format, step):
    long_name = "d/" + "n" * (90 if format == tarfile.USTAR_FORMAT else 190)
    data = tar(folder("d"), entry("d/f", data=b"x" * 1300), symlink("l", "d"), hardlink("h", "d/f"),
               entry("p", tarfile.FIFOTYPE), entry(long_name, data=b"y"), format=format)  # fmt: skip
    out, tarfilter = run(data, step)
    assert out.rstrip(b"\0") == data.rstrip(b"\0")
    assert (tarfilter.entries, tarfilter.dropped) == (6, 0)


def test_devices_and_global_headers_are_left_out_with_their_extended_headers():
    null = entry("dev/" + "n" * 150, tarfile.CHRTYPE, devmajor=1, devminor=3)
    whiteout = entry("smuggled", tarfile.CHRTYPE, devmajor=0, devminor=0)
    disk = entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0)
    data = tar(entry("a", data=b"1"), null, whiteout, disk, entry("b", data=b"2"))
    out, tarfilter = run(data)
    assert names(out) == {"a": b"1", "b": b"2"}
    assert tarfilter.dropped == 3
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "evil"}) as archive:
        archive.addfile(tarfile.TarInfo("good"))
    assert names(run(buffer.getvalue())[0]) == {"good": b""}


def pax(records):
    body = b""
    for key, value in records.items():
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        body += b"%d %s=%s\n" % (length, key, value)
    return raw_header(b"x", b"x", b"%011o\0" % len(body)) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def octal(number):
    return b"%011o\0" % number


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not a tar archive".ljust(512), "not a tar archive"),
        (raw_header(b"f")[:300], "truncated"),
        (raw_header(b"f", size=octal(600)) + bytes(512), "truncated"),
        (raw_header(b"f")[:140] + b"x" + raw_header(b"f")[141:], "checksum"),
        (raw_header(b"f", size=b"\xff" * 12), "negative size"),
        (raw_header(b"f", size=b"-0000000001\0"), "negative"),
        (raw_header(b"f", size=b"99999999999\0"), "not a number"),
        (raw_header(b"f", size=b"\x80" + b"\x7f" * 11), "a file of"),
        (raw_header(b"f", b"S"), "unsupported type"),
        (raw_header(b"f", b"Z"), "unsupported type"),
        (raw_header(b"d", b"5", octal(512)) + bytes(512), "with data"),
        (raw_header(b"l", b"2", octal(1)), "with data"),
        (raw_header(b"n", b"L", octal(5 << 20)), "extended header of"),
        (raw_header(b"n", b"x", b"\x80" + bytes(6) + b"\x10" * 5), "extended header of"),
        (pax({b"GNU.sparse.realsize": b"1"}) + raw_header(b"f"), "sparse"),
        (pax({b"size": b"1e9"}) + raw_header(b"f"), "bad size"),
        (pax({b"size": b"9" * 30}) + raw_header(b"f"), "bad size"),
        (pax({b"size": b"-1"}) + raw_header(b"f"), "bad size"),
        (pax({b"size": b"512"}) + raw_header(b"l", b"2") + bytes(512), "with data"),
        (pax({b"path": b"x"}), "truncated"),
        (pax({b"path": b"x"}) + bytes(1024), "truncated"),
        (raw_header(b"x", b"x", octal(6)) + b"99 a=b".ljust(512, b"\0"), "PAX"),
        (raw_header(b"n", b"L", octal(1 << 20)) * 1 + bytes(1 << 20), "truncated"),
    ],
)
def test_lies_are_refused(data, said):
    for step in (100, 10**7):
        with pytest.raises(ImageCorrupt) as caught:
            run(data, step)
        assert said in str(caught.value)


def test_a_chain_of_long_names_is_bounded():
    link = raw_header(b"n", b"L", octal(1 << 20)) + bytes(1 << 20)
    with pytest.raises(ImageCorrupt, match="too many extended headers"):
        run(link * 8)


def test_pax_size_counts_and_a_missing_end_is_tolerated():
    data = pax({b"size": b"600"}) + raw_header(b"f") + bytes(1024) + raw_header(b"g")
    out, tarfilter = run(data)
    assert out == data + END
    assert tarfilter.entries == 2


def test_what_follows_the_end_is_ignored():
    data = tar(entry("a")) + raw_header(b"hidden") + b"junk"
    assert set(names(run(data)[0])) == {"a"}


def test_limits():
    many = tar(*(entry(f"f{i}") for i in range(20)))
    with pytest.raises(ImageCorrupt, match="more than 10 entries"):
        run(many, limits=Limits(max_entries=10))
    with pytest.raises(ImageCorrupt, match="larger than 5000 bytes"):
        run(many, limits=Limits(max_bytes=5000))
    with pytest.raises(ImageCorrupt, match="a file of 6000 bytes"):
        run(raw_header(b"f", size=octal(6000)), limits=Limits(max_bytes=5000))


@given(st.binary(max_size=1500), st.integers(1, 700))
def test_arbitrary_bytes(data, step):
    for prefix in (b"", raw_header(b"f", size=octal(100)), raw_header(b"x", b"x", octal(40))):
        try:
            run(prefix + data, step)
        except ImageError:
            pass


@given(st.binary(max_size=100))
def test_pax_parser_never_loops_or_leaks_other_errors(data):
    try:
        parse_pax(data)
    except ImageCorrupt:
        pass
