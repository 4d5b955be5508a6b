"""Driver of conmon, the monitor that holds a container's stdio and exit code while agents come and go.

Used with ``--sync`` (one fork less, and the pid is known before anything happens) and ``--api-version 1``.
conmon waits at its start pipe before it does anything: there it is moved into the monitors' cgroup, which its
later children (runc) inherit; runc then moves the container into its own.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import itertools
import os
import re
import subprocess
import termios
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import processes, watch
from nodewright_agent.runtime.errors import ContainerRuntimeError, CreateContainerError, RunContainerError
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.spec import ContainerSpec
from nodewright_agent.runtime.store import Layout
from nodewright_agent.runtime.tasks import tasks

_MAX_ANSWER = 1 << 20
_LOGRUS_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_TAIL = 2048
_PATIENCE = 10.0
"""Seconds in which the monitor must have read its lines, and then have begun a log."""
_HANDLED = 0.05
"""Seconds in which the monitor does what a line says that it has read."""


class MonitorCommand(msgspec.Struct, frozen=True, kw_only=True):
    """All that one monitor is told."""

    conmon: str
    runc: str
    cid: str
    bundle: str
    runc_root: str
    exit_dir: str
    socket: str
    """Link that the monitor makes to the bundle; its name is the monitor's uuid."""
    log_path: str
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


def command(spec: ContainerSpec, layout: Layout, monitor: str, runc: str) -> MonitorCommand:
    """The command of a container's monitor."""
    return MonitorCommand(
        conmon=monitor,
        runc=runc,
        cid=spec.id,
        bundle=str(layout.bundle(spec.id)),
        runc_root=str(layout.runc),
        exit_dir=str(layout.exits),
        socket=str(layout.socket(spec.id)),
        log_path=spec.log_path,
        tty=spec.tty,
        stdin=spec.stdin,
        stdin_once=spec.stdin_once,
    )


class Answer(msgspec.Struct):
    """What the monitor says: a pid or an exit code; -1 and the OCI runtime's stderr when it failed."""

    data: int
    message: str = ""


def arguments(command: MonitorCommand) -> list[str]:
    """conmon's command line. Pure."""
    bundle = command.bundle
    words = [command.conmon, "--api-version", "1", "--sync", "--no-sync-log"]
    words += ["-c", command.cid, "-u", os.path.basename(command.socket), "-n", command.cid, "-r", command.runc]
    words += [f"--runtime-arg=--root={command.runc_root}", "-b", bundle, "-p", f"{bundle}/pid"]
    words += [
        "-l",
        f"k8s-file:{command.log_path}" if command.log_path else "none",
        "--exit-dir",
        command.exit_dir,
        "--persist-dir",
        f"{bundle}/persist",
    ]
    words += ["--socket-dir-path", os.path.dirname(command.socket)]
    if command.tty:
        words.append("-t")
    if command.stdin:
        words.append("-i")
        # A terminal's input stays open under containerd too: whoever comes next goes on with it.
        if command.tty or not command.stdin_once:
            words.append("--leave-stdin-open")
    return words


def parse_answer(data: bytes) -> int:
    """The container's pid from the monitor's first line. Pure.

    Raises RunContainerError with the OCI runtime's own words when it refused, CreateContainerError when the line makes
    no sense (the monitor itself failed).
    """
    answer = decode_answer(data.partition(b"\n")[0])
    if answer.data <= 0:
        raise RunContainerError(runc_message(answer.message) or "the OCI runtime failed without a message")
    return answer.data


def decode_answer(line: bytes) -> Answer:
    """One line of the sync pipe. Raises CreateContainerError when it makes no sense. Pure."""
    try:
        return msgspec.json.decode(line, type=Answer)
    except msgspec.DecodeError:
        raise CreateContainerError(f"the container monitor gave no answer: {tail(line) or 'it ended early'}") from None


def runc_message(text: str) -> str:
    r"""The readable part of runc's stderr: the last logrus ``msg="..."``, unquoted, or the last lines as they are.

    ``runc create failed: unable to start container process: exec: "nosuch": executable file not found in $PATH``
    """
    found = _LOGRUS_MESSAGE.findall(text)
    if found:
        return tail(re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), found[-1]).encode())
    return tail(text.encode())


def tail(data: bytes, limit: int = _TAIL) -> str:
    """The end of some output as text."""
    return data[-limit:].decode(errors="replace").strip()


async def create(
    command: MonitorCommand, host: HostSpace, *, place: Callable[[int], Awaitable[None]], timeout: float
) -> tuple[int, int, int]:
    """Start a monitor and let it create the container; (container's pid, the monitor's pid, the monitor's pidfd).

    It runs in the host's mount namespace and holds nothing open that is the agent's: it outlives the agent's container.
    ``place`` is called with the monitor's pid before it does anything. Raises RunContainerError (the OCI runtime
    refused) or CreateContainerError; the monitor is gone then.
    """
    try:
        (sync_read, sync_write), (start_read, start_write) = pipes(2)
    except OSError as error:
        raise CreateContainerError(f"cannot start the container monitor: {error}") from error
    errors = Path(command.bundle, "conmon.err")
    try:
        monitor = _spawn(command, host, sync_write, start_read, errors)
    except OSError as error:
        for fd in (sync_read, start_write):
            os.close(fd)
        raise CreateContainerError(f"cannot start the container monitor: {error}") from error
    finally:
        os.close(sync_write)
        os.close(start_read)
    try:
        try:
            failpoint("conmon.spawned")
            await place(monitor.pid)
            os.write(start_write, b"0")
        finally:
            os.close(start_write)
        failpoint("conmon.released")
        async with asyncio.timeout(timeout):
            data = await first_line(sync_read)
        if not data:
            data = errors.read_bytes()
        pid = parse_answer(data)
        pidfd = os.pidfd_open(monitor.pid)
        processes.detach(monitor)
        return pid, monitor.pid, pidfd
    except BaseException as error:
        monitor.kill()
        monitor.wait()
        if isinstance(error, TimeoutError):
            raise CreateContainerError(f"the OCI runtime did not answer within {timeout:g} s") from error
        if isinstance(error, OSError) and not isinstance(error, ContainerRuntimeError):
            said = tail(errors.read_bytes())
            raise CreateContainerError(f"cannot place the container monitor: {said or error}") from error
        raise
    finally:
        os.close(sync_read)


def _spawn(
    command: MonitorCommand, host: HostSpace, sync_fd: int, start_fd: int, errors: Path
) -> subprocess.Popen[bytes]:
    environment = {**processes.ENVIRONMENT, "_OCI_SYNCPIPE": str(sync_fd), "_OCI_STARTPIPE": str(start_fd)}
    null, stderr = host.call(lambda: _streams(errors))
    try:
        return processes.spawn(
            # Some versions write a file named "oom" where they stand.
            host.command(arguments(command), cwd=command.bundle),
            stdin=null,
            stdout=null,
            stderr=stderr,
            environment=environment,
            pass_fds=(sync_fd, start_fd),
            cwd=None if host.separate else command.bundle,
        )
    finally:
        os.close(null)
        os.close(stderr)


def _streams(errors: Path) -> tuple[int, int]:
    """/dev/null and the monitor's stderr, opened in the host's namespace: through ours they would keep our mounts."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return null, os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except BaseException:
        os.close(null)
        raise


def pipes(count: int) -> list[tuple[int, int]]:
    """So many pipes, or none. Raises OSError."""
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError:
        for fd in itertools.chain(*made):
            os.close(fd)
        raise
    return made


class LineReader:
    """Lines from a pipe, in the event loop."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd, self._data = fd, b""

    async def next(self) -> bytes:
        """The next line with its end; what there is when the pipe ends without one; empty at the end."""
        while b"\n" not in self._data and len(self._data) < _MAX_ANSWER:
            await processes.readable(self._fd)
            chunk = os.read(self._fd, 65536)
            if not chunk:
                break
            self._data += chunk
        line, newline, self._data = self._data.partition(b"\n")
        return line + newline


async def first_line(fd: int) -> bytes:
    """One line from a pipe; empty when the other end was closed without one."""
    return await LineReader(fd).next()


async def start(runc: str, runc_root: Path, cid: str, pid: int, host: HostSpace, *, timeout: float) -> None:
    """Let a created container run, without executing ``runc start`` where its fifo shows the way (0.1 instead of 5 ms).

    The container's init waits in open(2) of ``exec.fifo`` and writes one byte; reading it and removing the fifo is all
    that ``runc start`` does (we use no hooks). Other runtimes, and layouts that we do not know, get ``runc start``.
    Raises RunContainerError when the container died before it could start.
    """
    fifo = runc_root / cid / "exec.fifo"
    try:
        # Without O_NONBLOCK a dead init would block us for ever.
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        argv = host.command([runc, f"--root={runc_root}", "start", cid])
        code, output = await processes.run(argv, timeout=timeout)
        if code:
            raise RunContainerError(runc_message(output.decode(errors="replace"))) from None
        return
    try:
        async with asyncio.timeout(timeout):
            await _first_of(fd, pid)
        if os.read(fd, 1) != b"0":
            raise RunContainerError("the container's init ended before it was started")
    except BlockingIOError:
        raise RunContainerError("the container's init ended before it was started") from None
    finally:
        os.close(fd)
    failpoint("start.released")
    fifo.unlink(missing_ok=True)


async def _first_of(fd: int, pid: int) -> None:
    """Wait until the fifo has the byte or the process has ended."""
    if (pidfd := processes.open_pidfd(pid)) is None:
        return
    try:
        async with tasks() as start:
            waits = [start(processes.readable(descriptor)) for descriptor in (fd, pidfd)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        os.close(pidfd)


def reopen_log(bundle: Path) -> None:
    """Tell the monitor to close its log file and open the name anew, after a rename. OSError(ENXIO): it has ended."""
    with _control(bundle) as fd:
        os.write(fd, b"2 0 0\n")


async def new_log(bundle: Path, path: Path, to: Path | None) -> None:
    """Have the log at ``path`` begun anew, after a rename to ``to`` where that is given; returns when it is there.

    Raises OSError: no rename, or the monitor has ended; TimeoutError: it does nothing.
    """

    def act() -> None:
        if to is not None:
            path.rename(to)
        failpoint("log.renamed")
        reopen_log(bundle)

    async with asyncio.timeout(_PATIENCE):
        await _taken(bundle)
    await watch.appeared(path, act, timeout=_PATIENCE)


async def resize(bundle: Path, width: int, height: int) -> None:
    """Set the size of the terminal, in characters; returns when the next may be set. OSError: the monitor has ended."""
    await _taken(bundle)
    with _control(bundle) as fd:
        os.write(fd, b"1 %d %d\n" % (height, width))
    await _taken(bundle)
    await asyncio.sleep(_HANDLED)


async def _taken(bundle: Path) -> None:
    """Wait until the monitor has read all lines: of several that it finds at once it takes each for the first."""
    left = array.array("i", [1])
    while True:
        with _control(bundle) as fd:
            fcntl.ioctl(fd, termios.FIONREAD, left)
        if not left[0]:
            return
        await asyncio.sleep(_HANDLED)


@contextlib.contextmanager
def _control(bundle: Path) -> Iterator[int]:
    """The pipe to the monitor. OSError(ENXIO): it has ended."""
    fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
