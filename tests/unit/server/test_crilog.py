"""The log format, the options of a request, the choice of a container, and where the last lines start."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube.objects import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
)
from nodewright_agent.server import crilog, logchoice, logfile, logoptions
from nodewright_agent.server.crilog import Renderer

T = "2016-10-06T00:17:09.669794202Z"
NOW = datetime(2020, 1, 1, tzinfo=UTC)


def render(renderer, *lines):
    return b"".join(renderer.render(line.encode()) for line in lines)


def test_whole_and_partial_pieces():
    lines = [
        f"{T} stdout F one",
        f"{T} stdout P two ",
        f"{T} stderr F other",
        f"{T} stdout P and ",
        f"{T} stdout F half",
    ]
    assert render(Renderer(), *lines) == b"one\ntwo other\nand half\n"


def test_timestamps_stand_at_the_start_of_lines_only():
    lines = [f"{T} stdout P a", f"{T} stdout F b", f"{T} stdout F c"]
    assert render(Renderer(timestamps=True), *lines) == f"{T} ab\n{T} c\n".encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (T, T),
        ("2016-10-06T00:17:09.5+00:00", "2016-10-06T00:17:09.500000000Z"),
        ("2016-10-06T00:17:09Z", "2016-10-06T00:17:09.000000000Z"),
        ("2016-10-06T00:17:09.1234+02:00", "2016-10-06T00:17:09.123400000+02:00"),
    ],
)
def test_times_have_nine_digits(text, expected):
    assert crilog.fixed_nanos(text) == expected


def test_lines_may_be_empty_have_spaces_tags_and_any_bytes():
    lines = [
        f"{T} stdout F ".encode(),
        f"{T} stdout F".encode(),
        f"{T} stdout F:x:y  a  b ".encode(),
        f"{T} stdout F \xff\r".encode("latin1"),
    ]
    renderer = Renderer()
    assert [renderer.render(line) for line in lines] == [b"\n", b"\n", b" a  b \n", b"\xff\r\n"]


@pytest.mark.parametrize("line", [b"", b"x", b"a b c d", f"{T} stdin F x".encode(), b"\xff stdout F x", b'{"log":"x"}'])
def test_other_lines_are_left_out(line):
    assert Renderer().render(line) == b""


def test_since():
    renderer = Renderer(since=datetime(2016, 10, 6, 0, 17, 10, tzinfo=UTC))
    lines = [f"{T} stdout F old", "2016-10-06T02:17:10.0+02:00 stdout F new", "yesterday stdout F what"]
    assert render(renderer, *lines) == b"new\n"


def test_limit_counts_what_is_sent():
    renderer = Renderer(limit_bytes=7, timestamps=False)
    assert render(renderer, f"{T} stdout F abcd") == b"abcd\n"
    assert not renderer.full
    assert render(renderer, f"{T} stdout F efgh") == b"ef"
    assert renderer.full


def test_one_stream():
    lines = [f"{T} stdout F out", f"{T} stderr F err"]
    assert render(Renderer(stream="Stderr"), *lines) == b"err\n"


@given(st.binary(max_size=80))
def test_no_line_breaks_the_parser(line):
    Renderer(since=NOW, timestamps=True).render(line)


# --- options ------------------------------------------------------------------------------------------------------


def test_options():
    parsed = logoptions.parse(
        {
            "follow": "true",
            "previous": "",
            "timestamps": "0",
            "tailLines": "5",
            "limitBytes": "10",
            "sinceSeconds": "60",
        },
        NOW,
    )
    assert parsed == logoptions.LogOptions(True, True, False, NOW - timedelta(seconds=60), 5, 10, "All")
    assert logoptions.parse({}, NOW) == logoptions.LogOptions()
    assert logoptions.parse({"tail": "all", "tailLines": "", "follow": "false"}, NOW) == logoptions.LogOptions()
    assert logoptions.parse({"tail": "3"}, NOW).tail_lines == 3
    assert logoptions.parse({"sinceTime": "2020-01-01T01:00:00+01:00"}, NOW).since == NOW


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"tailLines": "-1"}, 422), ({"limitBytes": "0"}, 422), ({"limitBytes": "-4"}, 422),
        ({"sinceSeconds": "0"}, 422),
        ({"sinceSeconds": "5", "sinceTime": "2020-01-01T00:00:00Z"}, 422), ({"stream": "Both"}, 422),
        ({"stream": "Stdout", "tailLines": "1"}, 422),
        ({"tailLines": "ten"}, 400), ({"tailLines": "1e3"}, 400), ({"tailLines": "9" * 5000}, 400),
        ({"tailLines": "٣"}, 400),
        ({"limitBytes": str(2**63)}, 400), ({"sinceTime": "today"}, 400), ({"sinceTime": "2020-13-01T00:00:00Z"}, 400),
    ],
)  # fmt: skip
def test_bad_options(query, status):
    with pytest.raises(logoptions.BadQuery) as caught:
        logoptions.parse(query, NOW)
    assert caught.value.status == status


def test_a_huge_since_is_all_of_time():
    assert logoptions.parse({"sinceSeconds": str(2**63 - 1)}, NOW).since == datetime.min.replace(tzinfo=UTC)


# --- choice -------------------------------------------------------------------------------------------------------


def ended(container_id):
    return ContainerState(terminated=ContainerStateTerminated(1, container_id=container_id))


def waiting(reason):
    return ContainerState(waiting=ContainerStateWaiting(reason))


RUNNING = ContainerState(running=ContainerStateRunning(T))


def choose(state, last=None, previous=False, group="container_statuses"):
    status = ContainerStatus("c", False, 0, "", "", state, last or ContainerState(), container_id="x://now")
    pod = Pod(ObjectMeta(name="p"), PodSpec(), PodStatus(**{group: [status]}))
    return logchoice.container_id(pod, "c", previous)


@pytest.mark.parametrize("group", ["container_statuses", "init_container_statuses", "ephemeral_container_statuses"])
def test_a_running_container(group):
    assert choose(RUNNING, group=group) == "x://now"


@pytest.mark.parametrize(
    ("state", "last", "previous", "expected"),
    [
        (RUNNING, ended("x://old"), True, "x://old"),
        (ended("x://end"), None, False, "x://end"),
        (ended(""), ended("x://old"), False, "x://old"),
        (waiting("CrashLoopBackOff"), ended("x://old"), False, "x://old"),
    ],
)
def test_which_run_is_shown(state, last, previous, expected):
    assert choose(state, last, previous) == expected


@pytest.mark.parametrize(
    ("state", "last", "previous", "text"),
    [
        (waiting("ContainerCreating"), None, False, 'container "c" in pod "p" is waiting to start: ContainerCreating'),
        (waiting("PodInitializing"), None, False, 'container "c" in pod "p" is waiting to start: PodInitializing'),
        (waiting("ErrImagePull"), None, False, 'container "c" in pod "p" is waiting to start: image can\'t be pulled'),
        (waiting("ImagePullBackOff"), None, False,
         'container "c" in pod "p" is waiting to start: trying and failing to pull image'),
        (ContainerState(), None, False, 'container "c" in pod "p" is waiting to start - no logs yet'),
        (ended(""), None, False, 'container "c" in pod "p" is terminated'),
        (waiting("x"), ended(""), False, 'container "c" in pod "p" is terminated'),
        (RUNNING, None, True, 'previous terminated container "c" in pod "p" not found'),
    ],
)  # fmt: skip
def test_why_there_is_no_log(state, last, previous, text):
    with pytest.raises(logchoice.NoLog) as caught:
        choose(state, last, previous)
    assert str(caught.value) == text


def test_unknown_containers():
    pod = Pod(ObjectMeta(name="p"), PodSpec(init_containers=[Container("i")], ephemeral_containers=[Container("e")]))
    assert logchoice.has_container(pod, "i")
    assert logchoice.has_container(pod, "e")
    assert not logchoice.has_container(pod, "c")
    with pytest.raises(logchoice.NoLog, match='container "i" in pod "p" is not available'):
        logchoice.container_id(pod, "i", False)


# --- files --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 40_000)), max_size=12),
    st.integers(0, 14),
    st.booleans(),
)
def test_the_last_lines_are_found_whatever_their_length(tmp_path_factory, pieces, lines, complete):
    path = tmp_path_factory.mktemp("tail") / "0.log"
    written = [f"{T} stdout {'P' if partial else 'F'} {'x' * length}\n".encode() for partial, length in pieces]
    data = b"".join(written)
    if written and not complete:
        data = data[:-1]
    path.write_bytes(data)
    # the plain way: group pieces into lines, take the last
    groups, current = [], []
    for piece, (partial, _) in zip(written, pieces, strict=True):
        current.append(piece)
        if not partial:
            groups.append(current)
            current = []
    tail = groups[-lines:] if lines else []
    unfinished = current if lines else []
    expected = sum(len(p) for group in tail for p in group) + sum(len(p) for p in unfinished)
    if written and not complete and lines:
        expected -= 1
    fd = os.open(path, os.O_RDONLY)
    try:
        assert len(data) - logfile.tail_offset(fd, lines) == expected
    finally:
        os.close(fd)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "logs" / "pod" / "c").mkdir(parents=True)
    (tmp_path / "logs" / "pod" / "c" / "0.log").write_text("fine")
    (tmp_path / "secret").write_text("secret")
    return tmp_path / "logs"


def read(root, *parts):
    directory = logfile.open_directory(root, parts[:-1])
    try:
        fd = logfile.open_log(directory, parts[-1])
        try:
            return os.read(fd, 100)
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def test_plain_logs_are_read(root):
    assert read(root, "pod", "c", "0.log") == b"fine"


@pytest.mark.parametrize("what", ["symlink", "hard link", "fifo", "directory", "socket", "linked directory"])
def test_what_a_pod_may_have_put_there_is_not_read(root, what):
    import socket

    log = root / "pod" / "c" / "0.log"
    log.unlink()
    if what == "symlink":
        log.symlink_to(root.parent / "secret")
    elif what == "hard link":
        os.link(root.parent / "secret", log)
    elif what == "fifo":
        os.mkfifo(log)
    elif what == "directory":
        log.mkdir()
    elif what == "socket":
        here = os.getcwd()
        os.chdir(log.parent)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as s:
            s.bind("0.log")
        os.chdir(here)
    else:
        (root.parent / "elsewhere").mkdir()
        (root.parent / "elsewhere" / "0.log").write_text("secret")
        log.parent.rmdir()
        log.parent.symlink_to(root.parent / "elsewhere")
    with pytest.raises(logfile.UnsafeLog):
        read(root, "pod", "c", "0.log")


@pytest.mark.parametrize(
    "parts",
    [("..", "secret"), ("pod", "..", "..", "secret"), ("pod", "c", "../../../secret"), ("", "x"), ("pod", "c", ""),
     (".", "x"), ("pod", "c", "0.log\0")],
)  # fmt: skip
def test_names_that_are_paths_are_refused(root, parts):
    with pytest.raises(logfile.UnsafeLog):
        read(root, *parts)
