import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent import failpoints
from nodewright_agent.runtime import conmon, mountinfo, probe, rootfs, signals, sysctls, users
from nodewright_agent.runtime.errors import CreateContainerError, RunContainerError
from nodewright_agent.runtime.spec import User

MOUNTINFO = b"""\
22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt\\0402/a\\134b rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue
40 27 0:40 / /run/x rw - tmpfs tmpfs\\011 rw
41 40 0:41 / /run/x/y rw - tmpfs tmpfs rw
42 41 0:42 / /run/xy rw - tmpfs tmpfs rw
43 41 0:43 / /run/x/y rw - tmpfs second rw
"""


def test_mountinfo():
    entries = mountinfo.parse(MOUNTINFO)
    assert entries[1].mount_point == "/mnt 2/a\\b"
    assert entries[1].root == "/mnt1"
    assert entries[1].propagation == ("master:1", "shared:7")
    assert entries[0].propagation == ()
    assert (entries[1].fstype, entries[1].source, entries[1].super_options) == (
        "ext3",
        "/dev/root",
        "rw,errors=continue",
    )
    assert entries[2].source == "tmpfs\t"
    assert mountinfo.below(entries, "/run/x/") == ["/run/x/y", "/run/x/y", "/run/x"]
    with pytest.raises(ValueError, match="not understood"):
        mountinfo.parse(b"1 2 garbage\n")
    assert mountinfo.parse(b"1 2 0:1 / /a\rb rw - tmpfs x\ry rw\n")[0].mount_point == "/a\rb", "written as it is"


@given(st.binary(max_size=60).filter(lambda name: b"\0" not in name))
def test_mount_points_come_back_as_they_were(name: bytes):
    escaped = b"".join(
        b"\\%03o" % byte if byte in b" \t\n\\\r\x0b\x0c\x1c\x1d\x1e\x85" else bytes([byte]) for byte in b"/" + name
    )
    (entry,) = mountinfo.parse(b"1 2 0:1 / " + escaped + b" rw - tmpfs t rw")
    assert os.fsencode(entry.mount_point) == b"/" + name


PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
broken
bad:x:abc:1::
bob:x:1000:100:Bob:/:
bob:x:7:7::/:
12:x:500:501::/:
big:x:4294967296:0::
"""
GROUP = b"root:x:0:\nusers:x:100:\naudio:x:29:bob,eve\nvideo:x:44:eve, bob\nwheel:x:10:bob\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (User(), (0, 0, (0,))),
        (User(image_user="root"), (0, 0, (0,))),
        (User(image_user="bob"), (1000, 100, (100, 29, 10))),
        (User(image_user="1000"), (1000, 100, (100, 29, 10))),
        (User(image_user="12"), (500, 501, (501,))),
        (User(image_user="4242"), (4242, 0, (0,))),
        (User(image_user="bob:audio"), (1000, 29, (29, 10))),
        (User(image_user="bob:77"), (1000, 77, (77, 29, 10))),
        (User(image_user="bob:"), (1000, 100, (100, 29, 10))),
        (User(uid=1000, image_user="root:audio"), (1000, 100, (100, 29, 10))),
        (User(uid=1000, gid=5, additional_gids=[9, 5]), (1000, 5, (5, 9, 29, 10))),
        (User(uid=1000, gid=5, additional_gids=[9], merge_groups=False), (1000, 5, (5, 9))),
        (User(gid=3, image_user="bob"), (1000, 3, (3, 29, 10))),
    ],
)
def test_users(user: User, expected: tuple):
    found = users.resolve(user, PASSWD, GROUP)
    assert (found.uid, found.gid, found.additional_gids) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ghost", "unable to find user ghost: no matching entries in passwd file"),
        ("bob:ghosts", "unable to find group ghosts: no matching entries in group file"),
        ("4294967296", "numeric ids must be 0 to 2147483647"),
        ("-1", "numeric ids"),
        ("1000:99999999999", "numeric ids"),
        ("bob:users:extra", "unable to find group users:extra"),
        ("big", "unable to find user big"),
    ],
)
def test_unknown_users(name: str, message: str):
    with pytest.raises(CreateContainerError, match=message):
        users.resolve(User(image_user=name), PASSWD, GROUP)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_garbage_in_account_files_is_no_crash(passwd: bytes, group: bytes):
    assert users.resolve(User(uid=5, gid=6), passwd, group).uid == 5


def test_account_files_are_read_within_the_root(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/../../../real")
    (tmp_path / "real").write_text("inside:x:1:1::/:\n")
    (tmp_path / "etc/group").symlink_to("/proc/self/environ")
    (tmp_path / "dir").mkdir()
    (tmp_path / "large").write_bytes(b"x" * 100)
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert users.read_bounded(fd, "etc/passwd") == b"inside:x:1:1::/:\n"
        assert users.read_bounded(fd, "etc/group") == b""
        assert users.read_bounded(fd, "nothing") == b""
        with pytest.raises(CreateContainerError, match="not a regular file"):
            users.read_bounded(fd, "dir")
        with pytest.raises(CreateContainerError, match="larger than 99 bytes"):
            users.read_bounded(fd, "large", 99)
    finally:
        os.close(fd)


@pytest.fixture
def root(tmp_path: Path):
    for name in ("usr/bin", "proc", "run"):
        (tmp_path / name).mkdir(parents=True)
    for name, target in {
        "bin": "usr/bin",
        "run/lock": "/run/locked",
        "up": "../x",
        "abs": "/../../x",
        "deep": "usr/../usr/bin",
        "kernel": "/proc/self/fd/3",
        "loop": "loop2",
        "loop2": "loop",
    }.items():
        (tmp_path / name).symlink_to(target)
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/bin/sh", "/usr/bin/sh"),
        ("/run/lock/a", "/run/locked/a"),
        ("/deep", "/usr/bin"),
        ("/new/dir", "/new/dir"),
        ("/a/./b", "/a/b"),
    ],
)
def test_resolution_inside_an_image(root: int, path: str, expected: str):
    assert rootfs.resolve(root, path, "mount path") == expected


@pytest.mark.parametrize(
    ("path", "message"),
    [("/up/y", "leads out"), ("/abs", "leads out"), ("/kernel", "leads into /proc"), ("/loop", "too many")],
)
def test_resolution_refuses(root: int, path: str, message: str):
    with pytest.raises(CreateContainerError, match=message):
        rootfs.resolve(root, path, "mount path")


def test_working_directory_below_proc(root: int):
    rootfs.check_working_directory(root, "/")
    rootfs.check_working_directory(root, "/process")
    for path in ("/proc", "/proc/self/cwd", "//proc/1"):
        with pytest.raises(CreateContainerError, match="below /proc"):
            rootfs.check_working_directory(root, path)


def test_monitor_answers():
    assert conmon.parse_answer(b'{"data": 4711}\n') == 4711
    stderr = (
        'time="2026-01-01T00:00:00Z" level=warning msg="something else"\n'
        'time="2026-01-01T00:00:00Z" level=error msg="runc create failed: unable to start container process: '
        'exec: \\"nosuch\\": executable file not found in $PATH"\n'
    )
    with pytest.raises(RunContainerError) as caught:
        conmon.parse_answer(json.dumps({"data": -1, "message": stderr}).encode() + b"\n")
    assert str(caught.value) == (
        'runc create failed: unable to start container process: exec: "nosuch": executable file not found in $PATH'
    )
    with pytest.raises(CreateContainerError, match="it ended early"):
        conmon.parse_answer(b"")
    with pytest.raises(CreateContainerError, match="Unknown option"):
        conmon.parse_answer(b"conmon: Unknown option --api")
    with pytest.raises(RunContainerError, match="without a message"):
        conmon.parse_answer(b'{"data": -1}')


def test_message_of_another_runtime_is_its_last_words():
    assert conmon.runc_message("  plain words\n") == "plain words"
    assert len(conmon.runc_message("x" * 10000)) == 2048


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), (2, 2), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("RTMIN", 34)],
)
def test_signals(text: str | int, number: int):
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["", "SIGNOPE", "0", "65", "-9", "RTMAX+1", "__doc__", "SIG_DFL"])
def test_bad_signals(text: str):
    with pytest.raises(ValueError, match="invalid signal"):
        signals.parse(text)


@pytest.mark.parametrize(
    ("name", "file", "space"),
    [
        ("net.ipv4.tcp_syncookies", "net/ipv4/tcp_syncookies", "net"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter", "net"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced", "ipc"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "ipc"),
        ("vm.swappiness", "vm/swappiness", None),
    ],
)
def test_sysctls(name: str, file: str, space: str | None):
    assert (sysctls.file_of(name), sysctls.namespace_of(name)) == (file, space)


@pytest.mark.parametrize("name", ["", "net..ipv4", "net/../../etc/passwd", "../x", "net.ipv4."])
def test_bad_sysctls(name: str):
    with pytest.raises(ValueError, match="invalid sysctl"):
        sysctls.file_of(name)


def test_versions():
    assert probe.version_tuple("1.1.5+ds1") == (1, 1, 5)
    assert probe.version_tuple("1.3.0-rc.1") < (1, 3, 6)


def test_failpoints():
    actions = failpoints.parse("a=exit, b=2*error:full ,c=delay:0.5")
    assert {name: action.kind for name, action in actions.items()} == {"a": "exit", "b": "error", "c": "delay"}
    actions["b"].run("b")
    with pytest.raises(failpoints.FailpointError, match="full"):
        actions["b"].run("b")
    for bad in ("a", "a=jump", "=exit", "a=delay:x"):
        with pytest.raises(ValueError, match=r"failpoint|float"):
            failpoints.parse(bad)
