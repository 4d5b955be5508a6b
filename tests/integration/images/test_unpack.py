"""The unpacking of layers against the catalogue of breakouts: whatever an archive says, nothing outside changes."""

import gzip
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from nodewright_agent.runtime.images.errors import ErrImagePull, ImageCorrupt, ImageError, StoreFull
from nodewright_agent.runtime.images.layers import Blob, LayerUnpacker
from nodewright_agent.runtime.images.model import Limits
from support.image_makers import digest, entry, folder, hardlink, raw_header, symlink, tar

pytestmark = pytest.mark.needs_root

SECRET = b"belongs to the host\n"


@pytest.fixture
def host(tmp_path):
    """A layer directory beside files that must not change, with the means to tell."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    (tmp_path / "layer").mkdir(mode=0o755)
    return tmp_path


def unpack(directory, data, limits=None, packed=None):
    packed = packed if packed is not None else gzip.compress(data, 1)
    unpacker = LayerUnpacker(directory, digest(data), Blob(digest(packed), len(packed)), limits or Limits())
    try:
        for at in range(0, len(packed), 65536):
            unpacker.feed(packed[at : at + 65536])
        return unpacker.finish()
    finally:
        unpacker.abort()


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def is_whiteout(path):
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def test_owners_modes_times_links_and_odd_names_are_kept(host):
    layer = host / "layer"
    data = tar(
        folder("./", mode=0o751),
        folder("d", mode=0o1777, mtime=1234, uid=5, gid=6),
        entry("d/suid", data=b"x", mode=0o4755, uid=7, gid=8, mtime=99),
        entry("d/ünï", data=b"u"),
        entry("d/" + "n" * 180, data=b"long"),
        entry(os.fsdecode(b"d/\xff"), data=b"raw"),
        symlink("d/link", "/absolute/../elsewhere"),
        hardlink("d/hard", "d/suid"),
        entry("d/fifo", tarfile.FIFOTYPE),
        entry("implied/parent/f", data=b"p"),
    )
    made = unpack(layer, data)
    assert made.entries == 11
    assert mode(layer) == 0o751
    d = layer / "d"
    assert (mode(d), d.stat().st_uid, d.stat().st_gid, d.stat().st_mtime) == (0o1777, 5, 6, 1234)
    suid = d / "suid"
    assert (mode(suid), suid.stat().st_uid, suid.stat().st_gid, suid.stat().st_mtime) == (0o4755, 7, 8, 99)
    assert suid.stat().st_ino == (d / "hard").stat().st_ino
    assert os.readlink(d / "link") == "/absolute/../elsewhere"
    assert stat.S_ISFIFO((d / "fifo").lstat().st_mode)
    assert (d / "ünï").read_bytes() == b"u"
    assert (d / ("n" * 180)).read_bytes() == b"long"
    assert os.path.exists(os.path.join(os.fsencode(d), b"\xff"))
    assert mode(layer / "implied") == 0o755
    assert not [name for name in os.listdir(layer) if name.startswith(".nodewright")]


def test_file_capabilities_are_kept_and_dangerous_attributes_are_not(host):
    layer = host / "layer"
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.security.selinux": "evil",
    }
    data = tar(entry("ping", data=b"x", mode=0o755, pax_headers=headers), folder("dir", pax_headers=headers))
    unpack(layer, data)
    assert sorted(os.listxattr(layer / "ping")) == ["security.capability", "user.note"]
    assert os.getxattr(layer / "ping", "security.capability") == capability
    assert not [name for name in os.listxattr(layer / "dir") if name.startswith("trusted.")]


def test_whiteouts_become_those_of_overlayfs(host):
    layer = host / "layer"
    marks = (
        "d/.wh.gone",
        "d/.wh.name with space",
        "o/.wh..wh..opq",
        ".wh.top",
        "d/.wh..wh.plnk",
        ".wh.again",
        ".wh.dir",
    )
    kept = [entry("o/new"), entry("again", data=b"n"), folder("dir")]
    made = unpack(layer, tar(folder("d", mtime=77), folder("o"), *kept, *(entry(mark) for mark in marks)))
    assert is_whiteout(layer / "d/gone")
    assert is_whiteout(layer / "d/name with space")
    assert is_whiteout(layer / "top")
    assert os.getxattr(layer / "o", "trusted.overlay.opaque") == b"y"
    assert (layer / "again").read_bytes() == b"n"
    assert os.getxattr(layer / "dir", "trusted.overlay.opaque") == b"y"
    assert (layer / "d").stat().st_mtime == 77
    assert not [name for _, dirs, files in os.walk(layer) for name in dirs + files if name.startswith(".wh.")]
    assert not made.opaque_root


def test_opaque_root_is_reported(host):
    assert unpack(host / "layer", tar(entry(".wh..wh..opq"), entry("f"))).opaque_root


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."])
def test_whiteouts_of_nothing_and_of_parents_are_refused(host, name):
    with pytest.raises(ErrImagePull, match="whiteout"):
        unpack(host / "layer", tar(folder("d"), entry(name)))


def test_a_directory_named_like_a_whiteout_is_refused(host):
    with pytest.raises(ErrImagePull, match="is a directory"):
        unpack(host / "layer", tar(folder(".wh.d"), entry(".wh.d/f")))


def test_devices_are_left_out(host):
    unpack(host / "layer", tar(entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3), entry("w", tarfile.CHRTYPE),
                               entry("disk", tarfile.BLKTYPE, devmajor=8), entry("f")))  # fmt: skip
    assert os.listdir(host / "layer") == ["f"]


def breakouts(outside):
    """Archives that try to write, link, chmod or delete outside; names after containerd's TestBreakouts."""
    up, absolute = "../outside/secret", f"{outside}/secret"
    deep_up = "../" * 30 + absolute.lstrip("/")
    evil = b"evil"
    yield "up", [entry(up, data=evil)]
    yield "absolute", [entry(absolute, data=evil)]
    yield "hidden up", [entry("a/../../outside/secret", data=evil)]
    yield "dotted up", [entry("./../outside/secret", data=evil)]
    yield "far up", [entry(deep_up, data=evil)]
    yield "SymlinkAbsolute", [symlink("l", absolute), entry("l", data=evil)]
    yield "SymlinkUpAndOut", [symlink("l", up), entry("l", data=evil)]
    yield "SymlinkMultipleAbsolute", [symlink("a", str(outside)), symlink("b", "/a"), entry("b/secret", data=evil)]
    yield "SymlinkMultipleRelative", [symlink("a", "../outside"), symlink("b", "a"), entry("b/secret", data=evil)]
    yield "write below link", [symlink("d", str(outside)), entry("d/secret", data=evil), entry("d/new", data=evil)]
    yield "write below relative link", [symlink("d", "../outside"), entry("d/new", data=evil)]
    yield "link in several steps", [
        folder("x"), symlink("x/y", ".."), symlink("z", "x/y/../outside"), entry("z/secret", data=evil),
    ]  # fmt: skip
    yield "SymlinkParentDirectory", [symlink("d", ".."), entry("d/outside/secret", data=evil)]
    yield "SymlinkSlashEnded", [symlink("d/", str(outside)), entry("d/secret", data=evil)]
    yield "SymlinkOverridePath", [folder("d"), symlink("d", str(outside)), entry("d/secret", data=evil)]
    yield "root itself is a link", [symlink(".", str(outside)), entry("secret", data=evil)]
    yield "HardlinkAbsolute", [hardlink("h", absolute), entry("h", data=evil)]
    yield "HardlinkRelative", [hardlink("h", up), entry("h", data=evil)]
    yield "HardlinkRelativeLong", [hardlink("h", deep_up), entry("h", data=evil)]
    yield "HardlinkDownAndOut", [folder("d"), hardlink("h", "d/../../outside/secret"), entry("h", data=evil)]
    yield "HardlinkDirectAbsolute", [hardlink(absolute, "f"), entry("f", data=evil)]
    yield "HardlinkSymlinkChmod", [symlink("s", absolute), hardlink("h", "s"), entry("h", data=evil, mode=0o777)]
    yield "HardlinkSymlinkBeforeCreateTarget", [symlink("s", absolute), hardlink("h", "s"), entry("s", data=evil)]
    yield "DirectoryOverrideSymlink", [symlink("d", str(outside)), folder("d"), entry("d/secret", data=evil)]
    yield "directory mode through link", [symlink("d", str(outside)), folder("d/.", mode=0o777)]
    yield "WhiteoutRootParent", [entry("../.wh.outside")]
    yield "WhiteoutAbsolute", [entry(f"{outside}/.wh.secret")]
    yield "WhiteoutSymlink", [symlink("d", str(outside)), entry("d/.wh.secret")]
    yield "WhiteoutSymlinkPath", [symlink("d", "../outside"), entry("d/.wh.secret")]
    yield "opaque through link", [symlink("d", str(outside)), entry("d/.wh..wh..opq")]
    yield "WhiteoutDeadSymlinkParent", [symlink("d", "nowhere"), entry("d/.wh.f")]


NAMES = [name for name, _ in breakouts("/x")]


@pytest.mark.parametrize("name", NAMES)
def test_breakouts(host, name):
    outside = host / "outside"
    entries = dict(breakouts(outside))[name]
    before = outside.stat()
    try:
        unpack(host / "layer", tar(*entries))
    except ImageError:
        pass  # refusing is as good as confining
    assert (outside / "secret").read_bytes() == SECRET
    assert os.listdir(outside) == ["secret"]
    assert sorted(os.listdir(host)) == ["layer", "outside"]
    assert (outside.stat().st_mode, outside.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert (outside / "secret").stat().st_nlink == 1
    assert os.listxattr(outside) == []
    inodes = {os.lstat(os.path.join(at, f)).st_ino for at, _, files in os.walk(host / "layer") for f in files}
    assert (outside / "secret").stat().st_ino not in inodes


@pytest.mark.parametrize(
    "data",
    [
        raw_header(b""),
        raw_header(b"."),
        raw_header(b"/"),
        raw_header(b"//"),
        raw_header(b"f", b"1", link=b""),
        raw_header(b"f", b"2", link=b""),
        raw_header(b"f", b"1", link=b"missing"),
        raw_header(b"-rf"),
        raw_header(b"--checkpoint-action=exec=sh"),
        tar(entry("x" * 300, data=b"")),
        tar(entry("d/" * 2500 + "f")),
        tar(*(folder("/".join(["d"] * n)) for n in range(1, 150))),
        tar(entry("f", data=b"1"), folder("f"), entry("f", data=b"2")),
        tar(folder("d"), entry("d/f"), entry("d")),
        tar(entry("f", uid=2**40, gid=2**40)),
        tar(entry("f", pax_headers={"mtime": "nan"})),
        tar(entry("f", pax_headers={"mtime": "253402300800"})),
        tar(entry("f", pax_headers={"uid": "-1"})),
    ],
)
def test_oddities_end_in_a_layer_or_an_image_error(host, data):
    try:
        unpack(host / "layer", data)
    except ImageError:
        pass
    assert sorted(os.listdir(host)) == ["layer", "outside"]


def test_a_shared_library_planted_by_the_layer_is_not_loaded_by_tar(host):
    """glibc would load iconv modules from the new root for names that are not ASCII (CVE-2019-14271)."""
    marker = entry("usr/lib/x86_64-linux-gnu/gconv/gconv-modules", data=b"module UTF-8// INTERNAL evil 1\n")
    evil = entry("usr/lib/x86_64-linux-gnu/gconv/evil.so", data=b"\x7fELF not really", mode=0o755)
    preload = entry("etc/ld.so.preload", data=b"/usr/lib/x86_64-linux-gnu/gconv/evil.so\n")
    unpack(host / "layer", tar(marker, evil, preload, entry("ü" * 120, data=b"x")))
    assert (host / "layer" / ("ü" * 120)).exists()


def test_limits_hold_against_bombs(host):
    with pytest.raises(ImageCorrupt, match="more than 5242880"):
        unpack(host / "layer", tar(entry("zeros", data=bytes(20 << 20))), Limits(max_bytes=5 << 20))
    with pytest.raises(ImageCorrupt, match="larger than 5242880"):
        unpack(host / "layer", tar(*(entry(f"z{i}", data=bytes(1 << 20)) for i in range(8))), Limits(max_bytes=5 << 20))
    with pytest.raises(ImageCorrupt, match="more than 100 entries"):
        unpack(host / "layer", tar(*(entry(f"f{i}") for i in range(200))), Limits(max_entries=100))


def test_digests_and_sizes_are_verified(host):
    data = tar(entry("f", data=b"x" * 3000))
    packed = gzip.compress(data)

    def attempt(diff_id, blob_digest, size, content=packed):
        unpacker = LayerUnpacker(host / "layer", diff_id, Blob(blob_digest, size), Limits())
        try:
            unpacker.feed(content)
            unpacker.finish()
        finally:
            unpacker.abort()

    other = digest(b"other")
    with pytest.raises(ImageCorrupt, match="blob has digest"):
        attempt(digest(data), other, len(packed))
    with pytest.raises(ImageCorrupt, match="diff id"):
        attempt(other, digest(packed), len(packed))
    with pytest.raises(ImageCorrupt, match="larger than"):
        attempt(digest(data), digest(packed), len(packed) - 1)
    with pytest.raises(ImageCorrupt, match="bytes, its descriptor says"):
        attempt(digest(data), digest(packed), len(packed) + 1)
    with pytest.raises(ImageCorrupt, match="truncated"):
        attempt(digest(data), digest(packed[:50]), 50, packed[:50])


def test_full_disk_is_told_as_such(host):
    small = host / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(StoreFull, match="no space left on device"):
            unpack(small, tar(entry("big", data=os.urandom(3 << 20))))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    small.rmdir()


def test_no_process_and_no_mount_is_left(host):
    unpack(host / "layer", tar(entry("f")))
    unpacker = LayerUnpacker(host / "layer", digest(b""), None, Limits())
    unpacker.feed(tar(entry("f", data=bytes(4 << 20)))[: 2 << 20])
    child = unpacker._child
    unpacker.abort()
    assert child.returncode is not None
    assert str(host) not in Path("/proc/self/mountinfo").read_text()
