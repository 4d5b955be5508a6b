from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nodewright.controlplane import processes
from nodewright.controlplane.errors import ControlPlaneError
from nodewright.controlplane.processes import Component, ProcessRecord


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Component]:
    component = Component("thing", tmp_path / "run" / "thing.json", tmp_path / "logs" / "thing.log")
    yield component
    component.stop(grace=0)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is not ours to end."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_start_record_stop(part: Component) -> None:
    record = part.start(["/bin/sh", "-c", "echo hello; exec sleep 60"], fingerprint="f")
    assert part.running() == record
    assert record.argv[0] == "/bin/sh"
    assert record.fingerprint == "f"
    assert record.start_time == processes.start_time(record.pid)
    assert os.getsid(record.pid) == record.pid  # outlives the terminal of `up`
    while "hello" not in part.log_tail():
        assert part.running()
    assert part.stop()
    assert part.running() is None
    assert part.record() is None


def test_arguments_arrive_untouched(part: Component, tmp_path: Path) -> None:
    out = tmp_path / "out"
    odd = ["a b", "", "$HOME", "'", '"', "\\n", "%s", "-x", "ü\n"]
    script = "import sys, json; open(sys.argv[1], 'w').write(json.dumps(sys.argv[2:]))"
    record = part.start([sys.executable, "-c", script, str(out), *odd])
    assert part.wait_exit(record, 30)
    assert msgspec.json.decode(out.read_bytes()) == odd
    assert record.argv[4:] == odd


def test_kill_after_the_grace_period(part: Component) -> None:
    record = part.start(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
    while "ready" not in part.log_tail():
        assert part.running()
    assert processes.terminate(record, grace=0.05)
    assert not processes.is_alive(record)


def test_a_reused_pid_is_never_killed(part: Component, stranger: subprocess.Popen[bytes]) -> None:
    """The record names the stranger's pid, but the process that it was written for started at another time."""
    mine = part.start(["sleep", "60"])
    part.stop()
    # far off: both may have started within one clock tick, which a reuse of the pid cannot
    wrong = msgspec.structs.replace(mine, pid=stranger.pid, start_time=mine.start_time + 1_000_000)
    part.record_path.write_bytes(msgspec.json.encode(wrong))
    assert part.running() is None
    assert not part.stop()
    assert stranger.poll() is None


def test_a_record_of_an_earlier_boot_is_never_killed(part: Component, stranger: subprocess.Popen[bytes]) -> None:
    started = processes.start_time(stranger.pid)
    assert started is not None
    record = ProcessRecord(stranger.pid, started, "00000000-0000-0000-0000-000000000000", 0.0, ["sleep"])
    part.record_path.parent.mkdir()
    part.record_path.write_bytes(msgspec.json.encode(record))
    assert part.running() is None
    assert not part.stop()
    assert stranger.poll() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid":1}', "\x00\x01"])
def test_a_broken_record_stops_nothing(part: Component, content: str) -> None:
    part.record_path.parent.mkdir()
    part.record_path.write_text(content)
    assert part.running() is None
    assert not part.stop()
    assert not part.record_path.exists()


def test_a_killed_process_counts_as_ended_before_it_is_reaped(part: Component) -> None:
    record = part.start(["sleep", "60"])
    os.kill(record.pid, signal.SIGKILL)
    assert part.wait_exit(record, 10)
    assert part.running() is None  # it is a zombie of this process now


def test_a_program_that_does_not_exist_is_seen_as_ended(part: Component) -> None:
    record = part.start(["/nonexistent/program"])
    assert part.wait_exit(record, 10)
    assert "/nonexistent/program" in part.log_tail()


def test_a_child_that_cannot_write_its_record_is_an_error(part: Component, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LAUNCH", "exit 126")
    with pytest.raises(ControlPlaneError, match="could not be started"):
        part.start(["sleep", "60"])


def test_starting_works_beside_threads(part: Component) -> None:
    """Progress is drawn by a thread; starting must not fork the whole interpreter."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        assert part.start(["sleep", "60"]).pid
    finally:
        release.set()
        thread.join()


def test_big_logs_move_aside(part: Component, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LOG_LIMIT", 10)
    part.log_path.parent.mkdir()
    part.log_path.write_text("x" * 11)
    part.start(["sleep", "60"])
    assert part.log_path.with_name("thing.log.1").read_text() == "x" * 11
    assert part.log_path.read_text() == ""
