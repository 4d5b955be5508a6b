"""Commands inside running containers, through a monitor of their own: with their output, or connected to streams.

A plain ``runc exec`` ends only when every holder of its output has: a command that leaves a child behind would
hang. The monitor tells the command's own exit code; its attach socket carries input and output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from nodewright_agent.runtime import attachsocket, bundle, conmon, oci, processes, rootfs
from nodewright_agent.runtime.attachsocket import STDERR, STDOUT, AttachSocket
from nodewright_agent.runtime.errors import CreateContainerError, ExecError
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.probe import RuntimeInfo
from nodewright_agent.runtime.spec import ContainerRecord, ExecResult
from nodewright_agent.runtime.store import Layout, Store
from nodewright_agent.runtime.streams import Streams
from nodewright_agent.runtime.tasks import tasks
from nodewright_agent.runtime.terminal import Resizing

_STARTING = 30.0
"""Seconds in which the OCI runtime must have started a command that nobody waits for any more."""
_SLACK = 0.1
"""Seconds by which the kernel's times of processes and files may differ."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One command."""

    argv: list[str]
    env: list[str] = []
    timeout: float | None = None
    max_output: int = 1 << 20


class _Output:
    """Keeps the first ``limit`` bytes of each stream."""

    def __init__(self, limit: int) -> None:
        self.streams = {STDOUT: bytearray(), STDERR: bytearray()}
        self.truncated, self._limit = False, limit

    async def collect(self, connection: AttachSocket) -> None:
        """Take all that the monitor sends: one that is not read stops the command."""
        while found := await connection.read():
            for stream, data in found:
                if (kept := self.streams.get(stream)) is None:
                    continue
                room = self._limit - len(kept)
                kept += data[:room]
                self.truncated = self.truncated or len(data) > room
            await asyncio.sleep(0)


class _Command:
    """A command whose monitor is there; ``start`` lets it run."""

    def __init__(self, record: ContainerRecord, directory: Path, connection: AttachSocket, go: int, sync: int) -> None:
        self.directory, self.connection = directory, connection
        self._record, self._go, self._lines = record, go, conmon.LineReader(sync)
        self._pid = 0

    async def start(self) -> None:
        """Return when the command runs. Raises ExecError. Cancelled: it does not run then."""
        os.write(self._go, b"0")
        starting = asyncio.ensure_future(self._answer())
        try:
            self._pid = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The OCI runtime is at work: what it starts must not outlive us.
            with contextlib.suppress(ExecError, TimeoutError, CreateContainerError):
                self._pid = await asyncio.wait_for(starting, _STARTING)
                self.kill()
            raise

    async def ended(self, timeout: float | None = None) -> tuple[int, bool]:
        """Exit code, and whether it was killed since ``timeout`` seconds had passed. Cancelled: it is killed too."""
        try:
            try:
                async with asyncio.timeout(timeout):
                    return await self._answer(), False
            except TimeoutError:
                self.kill()
                return await self._answer(), True
        except asyncio.CancelledError:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the command's process."""
        if processes.in_cgroup(self._pid, self._record.cgroup):
            processes.kill(self._pid)

    async def _answer(self) -> int:
        """What the monitor says: the pid first, then the exit code."""
        line = await self._lines.next()
        if not line:
            raise ExecError("the command's monitor ended early")
        answer = conmon.decode_answer(line)
        if answer.data < 0:
            raise ExecError(conmon.runc_message(answer.message) or "the OCI runtime failed without a message")
        return answer.data


async def execute(
    record: ContainerRecord, request: Request, layout: Layout, info: RuntimeInfo, host: HostSpace
) -> ExecResult:
    """Run one command and keep its output. Raises ExecError with the OCI runtime's words when it could not start."""
    check(record, request)
    async with _command(record, layout, info, host) as command, tasks() as start:
        _write_process(command, record, request, layout, info, host)
        output = _Output(request.max_output)
        collecting = start(output.collect(command.connection))
        await command.start()
        code, timed_out = await command.ended(request.timeout)
        await collecting
        return ExecResult(
            code=code,
            stdout=bytes(output.streams[STDOUT]),
            stderr=bytes(output.streams[STDERR]),
            truncated=output.truncated,
            timed_out=timed_out,
        )


async def stream(
    record: ContainerRecord, request: Request, streams: Streams, layout: Layout, info: RuntimeInfo, host: HostSpace
) -> int:
    """Run one command on ``streams``; its exit code. Raises ExecError. Cancelled: the command is killed."""
    check(record, request)
    stdin = streams.stdin
    sizes = Resizing(streams.sizes) if streams.tty and streams.sizes is not None else None
    async with tasks() as start:
        if sizes is not None:
            start(sizes.run())
        async with _command(record, layout, info, host, tty=streams.tty, stdin=stdin is not None) as command:
            size = sizes.latest if sizes is not None else None
            _write_process(command, record, request, layout, info, host, tty=streams.tty, size=size)
            return await _connected(command, streams, sizes)


async def _connected(command: _Command, streams: Streams, sizes: Resizing | None) -> int:
    async with tasks() as start:
        writing = start(attachsocket.output(command.connection, streams))
        await command.start()
        if sizes is not None:
            sizes.follow(command.directory)
        if streams.stdin is not None:
            # A terminal's input has no end: whoever reads it is told by a byte, ^D.
            start(attachsocket.input_to(command.connection, streams.stdin, end=not streams.tty))
        code, _ = await command.ended()
        await writing
        return code


def end_left(store: Store, session: str) -> None:
    """End a command that an earlier agent left running in a container: nobody is connected to it any more."""
    record = store.read(session.rpartition("-x")[0])
    file = store.layout.bundle(session) / "pid"
    try:
        pid, written = int(file.read_text()), file.stat().st_mtime
    except (OSError, ValueError):
        return
    # The monitor may be gone: it ends when it has nobody to answer. Who has the number since then is younger.
    if record is not None and processes.in_cgroup(pid, record.cgroup) and processes.started(pid) <= written + _SLACK:
        processes.kill(pid)


def check(record: ContainerRecord, request: Request) -> None:
    """Refuse what cannot be a command of this container. Raises ExecError."""
    if not request.argv:
        raise ExecError("no command specified")
    if any("\0" in word for word in (*request.argv, *request.env)):
        raise ExecError("the command contains a NUL byte")
    check_working_directory(record)


def check_working_directory(record: ContainerRecord) -> None:
    """Refuse when the container has made its working directory a link through /proc (CVE-2024-21626)."""
    try:
        root = os.open(f"/proc/{record.state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise ExecError("the container is not running") from None
    try:
        rootfs.check_working_directory(root, record.spec.cwd)
    except CreateContainerError as error:
        raise ExecError(str(error)) from None
    finally:
        os.close(root)


def _write_process(
    command: _Command,
    record: ContainerRecord,
    request: Request,
    layout: Layout,
    info: RuntimeInfo,
    host: HostSpace,
    *,
    tty: bool = False,
    size: tuple[int, int] | None = None,
) -> None:
    """Write down what to run; the monitor reads it when it is told to start."""
    facts = bundle.host_facts(record.spec, record.state, layout, info, host)
    env = [*request.env, oci.TERM] if tty else request.env
    process = oci.process(record.spec, facts, request.argv, tty=tty, env=env)
    if size is not None:
        process["consoleSize"] = {"width": size[0], "height": size[1]}
    try:
        (command.directory / "process.json").write_bytes(msgspec.json.encode(process))
    except (OSError, UnicodeEncodeError) as error:
        raise ExecError(f"the command cannot be run: {error}") from error


def arguments(
    info: RuntimeInfo, layout: Layout, cid: str, session: str, *, tty: bool = False, stdin: bool = False
) -> list[str]:
    """conmon's command line for a command in container ``cid``. Pure."""
    directory = layout.bundle(session)
    words = [
        info.conmon,
        "--api-version",
        "1",
        "--sync",
        "-c",
        cid,
        "-u",
        layout.socket(session).name,
        "-n",
        cid,
        "-r",
        info.runc,
    ]
    words += [f"--runtime-arg=--root={layout.runc}", "-b", str(directory), "-p", f"{directory}/pid", "-l", "none"]
    words += ["--socket-dir-path", str(layout.sockets), "-e", "--exec-attach"]
    words += [*(["-t"] if tty else []), *(["-i"] if stdin else [])]
    return [*words, "--exec-process-spec", f"{directory}/process.json"]


@contextlib.asynccontextmanager
async def _command(
    record: ContainerRecord,
    layout: Layout,
    info: RuntimeInfo,
    host: HostSpace,
    *,
    tty: bool = False,
    stdin: bool = False,
) -> AsyncIterator[_Command]:
    """A monitor for one command; it is gone afterwards, with all of its files. Raises ExecError."""
    session = f"{record.id}-x{secrets.token_hex(4)}"
    directory = layout.bundle(session)
    try:
        try:
            directory.mkdir(mode=0o700)
            words = arguments(info, layout, record.id, session, tty=tty, stdin=stdin)
            async with _monitor(record, host.command(words, cwd=str(directory)), directory) as command:
                yield command
        except OSError as error:
            raise ExecError(f"the command cannot be run: {error}") from error
    finally:
        layout.socket(session).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)  # nothing is mounted in it


@contextlib.asynccontextmanager
async def _monitor(record: ContainerRecord, argv: list[str], directory: Path) -> AsyncIterator[_Command]:
    # Ours and the monitor's end of: what it answers, where it waits, where it says that one may attach.
    (sync, sync_end), (start_end, start), (attach, attach_end) = conmon.pipes(3)
    ends = (sync_end, start_end, attach_end)
    names = ("_OCI_SYNCPIPE", "_OCI_STARTPIPE", "_OCI_ATTACHPIPE")
    environment = {**processes.ENVIRONMENT, **dict(zip(names, map(str, ends), strict=True))}
    # The socket for a terminal's descriptor is left behind by a monitor that is killed: here it goes with the rest.
    environment["TMPDIR"] = "."
    monitor: subprocess.Popen[bytes] | None = None
    connection: AttachSocket | None = None
    try:
        try:
            monitor = processes.spawn(argv, environment=environment, pass_fds=ends, cwd=str(directory))
        finally:
            for fd in ends:
                os.close(fd)
        # It waits twice: before anything (to be placed), and before it runs the command.
        os.write(start, b"0")
        await conmon.first_line(attach)
        connection = AttachSocket(directory)
        yield _Command(record, directory, connection, start, sync)
        await processes.wait(monitor)
    finally:
        for fd in (sync, start, attach):
            os.close(fd)
        if connection is not None:
            connection.close()
        if monitor is not None and monitor.poll() is None:
            monitor.kill()
            monitor.wait()
