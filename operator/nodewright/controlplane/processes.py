"""Detached processes with an exact identity.

A process is (boot id, pid, start time): a pid alone may belong to somebody else by the time we look. The record is
written by the child itself before it becomes the program, so a kill of `up` at any moment leaves no process
without a record. Signals go through a pidfd whose process was checked after opening it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from nodewright.controlplane.errors import ControlPlaneError, PreconditionError
from nodewright.controlplane.files import make_dir

_LOG_LIMIT = 10 * 1024 * 1024  # bytes; an older log is moved aside when its component starts
_START_TIME_FIELD = 22  # of /proc/PID/stat, proc_pid_stat(5)

# $0 record file, $1 the rest of the record, then the program. /proc/$$/stat gives this process's start time, which
# exec keeps. The shell's own name holds no blanks, so counting fields is safe here.
_LAUNCH = (
    "read -r a b c d e f g h i j k l m n o p q r s t u start rest < /proc/$$/stat || exit 126\n"
    'printf \'{"pid":%s,"start_time":%s,%s}\\n\' "$$" "$start" "$1" > "$0" || exit 126\n'
    'shift\nexec "$@"'
)


class ProcessRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What run/<component>.json holds. `start_time` is in clock ticks since boot, `started` in Unix seconds."""

    pid: int
    start_time: int
    boot_id: str
    started: float
    argv: list[str]
    fingerprint: str = ""


class Component:
    """One supervised program of a cluster: its record file and its log file."""

    def __init__(self, name: str, record: Path, log: Path) -> None:
        self.name = name
        self.record_path = record
        self.log_path = log

    def record(self) -> ProcessRecord | None:
        """The latest record, None when there is none or it was never completed."""
        try:
            return msgspec.json.decode(self.record_path.read_bytes(), type=ProcessRecord)
        except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            return None

    def running(self) -> ProcessRecord | None:
        """The record of the process that runs now, else None."""
        record = self.record()
        return record if record is not None and is_alive(record) else None

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, fingerprint: str = ""
    ) -> ProcessRecord:
        """Start `argv` in a session of its own, standard output and error appended to the log."""
        make_dir(self.record_path.parent)
        make_dir(self.log_path.parent)
        _rotate(self.log_path)
        rest = msgspec.json.encode(
            {"boot_id": boot_id(), "started": time.time(), "argv": list(argv), "fingerprint": fingerprint}
        )
        self.record_path.unlink(missing_ok=True)
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            pid = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", _LAUNCH, str(self.record_path), rest[1:-1].decode(), *argv],
                dict(os.environ if env is None else env),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise PreconditionError(f"cannot start {self.name}: {error.strerror}") from error
        finally:
            os.close(log)
        return self._await_record(pid)

    def _await_record(self, pid: int) -> ProcessRecord:
        """Wait until the child has written its record: it does so within its first millisecond, or dies."""
        with _pidfd(pid) as fd:
            while True:
                ended = fd is None or _wait(fd, 0.002)  # asked first: it may write its record and end at once
                record = self.record()
                if record is not None and record.pid == pid:
                    return record
                if ended:
                    _reap(pid)
                    raise ControlPlaneError(f"{self.name} could not be started", f"see {self.log_path}")

    def stop(self, grace: float = 20.0) -> bool:
        """SIGTERM, and SIGKILL after `grace` seconds. True when there was a process of ours to stop."""
        record = self.record()
        stopped = record is not None and terminate(record, grace)
        self.record_path.unlink(missing_ok=True)
        return stopped

    def wait_exit(self, record: ProcessRecord, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the process to end; True when it has."""
        with _pidfd(record.pid) as fd:
            return fd is None or not _is_same(record) or _wait(fd, timeout)

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the log."""
        try:
            with self.log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 16384))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def is_alive(record: ProcessRecord) -> bool:
    """Whether exactly the recorded process exists and has not ended.

    The pidfd tells, not the state in /proc: there a process is a zombie as soon as its first thread has ended, while
    others still hold its files and ports.
    """
    with _pidfd(record.pid) as fd:
        return fd is not None and _is_same(record) and not _wait(fd, 0)


def _is_same(record: ProcessRecord) -> bool:
    """Whether the recorded pid still means the recorded process; ask while a pidfd pins the pid."""
    return record.boot_id == boot_id() and start_time(record.pid) == record.start_time


def terminate(record: ProcessRecord, grace: float) -> bool:
    """End the recorded process: SIGTERM, then SIGKILL. False when it does not exist any more."""
    with _pidfd(record.pid) as fd:
        if fd is None or not is_alive(record):  # checked while the pidfd pins the pid
            _reap(record.pid)
            return False
        try:
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            if not _wait(fd, grace):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                _wait(fd, 10.0)
        except ProcessLookupError:
            pass  # it ended by itself in between
        except PermissionError as error:
            raise PreconditionError(
                f"process {record.pid} belongs to another user", "run the command as the user who started the cluster"
            ) from error
        _reap(record.pid)
        return True


def boot_id() -> str:
    """Identity of this boot: pids and start times mean nothing in another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the command name before it may hold anything
    return int(fields[_START_TIME_FIELD - 3])


def memory(pid: int) -> int | None:
    """Proportional set size of `pid` in bytes, None when it is gone or not ours to read."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


@contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _wait(fd: int, timeout: float) -> bool:
    """True once the process behind the pidfd has ended."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # started by an earlier command: init reaps it


def _rotate(log: Path) -> None:
    try:
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))
    except FileNotFoundError:
        pass
