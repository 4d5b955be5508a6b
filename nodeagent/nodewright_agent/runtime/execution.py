"""Commands inside running containers, through a monitor of their own, with bounded output and time.

A plain ``runc exec`` ends only when every holder of its output has: a command that leaves a child behind would
hang. The monitor tells the command's own exit code; its attach socket carries the output.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
from pathlib import Path

import msgspec

from nodewright_agent.runtime import bundle, conmon, oci, processes, rootfs
from nodewright_agent.runtime.errors import CreateContainerError, ExecError
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.probe import RuntimeInfo
from nodewright_agent.runtime.spec import ContainerRecord, ExecResult
from nodewright_agent.runtime.store import Layout, remove_tree

_STDOUT, _STDERR = 2, 3
_PACKET = 8193
"""The monitor sends at most 8192 bytes of data behind one byte that names the stream."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One command."""

    argv: list[str]
    env: list[str] = []
    timeout: float | None = None
    max_output: int = 1 << 20


class _Output:
    """Takes all that the monitor sends (one that is not read stops the command), keeps the first ``limit`` bytes."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.streams = {_STDOUT: bytearray(), _STDERR: bytearray()}
        self.truncated, self._limit = False, limit
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # Addresses of sockets are limited to 107 bytes; through a descriptor any directory is near.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket.connect(f"/proc/self/fd/{fd}/attach")
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(fd)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Take what is there now, and close; idempotent."""
        if self._socket.fileno() < 0:
            return
        while self._read():
            pass
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> bool:
        try:
            packet = self._socket.recv(_PACKET)
        except (BlockingIOError, ConnectionResetError):
            packet = b""
        if not packet:
            self._loop.remove_reader(self._socket)
            return False
        kept = self.streams.get(packet[0])
        if kept is not None:
            room = self._limit - len(kept)
            kept += packet[1 : 1 + room]
            self.truncated = self.truncated or len(packet) - 1 > room
        return True


async def execute(
    record: ContainerRecord, request: Request, layout: Layout, info: RuntimeInfo, host: HostSpace
) -> ExecResult:
    """Run one command. Raises ExecError with the OCI runtime's words when it could not be started."""
    if not request.argv:
        raise ExecError("no command specified")
    if any("\0" in word for word in (*request.argv, *request.env)):
        raise ExecError("the command contains a NUL byte")
    check_working_directory(record)
    session = f"{record.id}-x{secrets.token_hex(4)}"
    directory = layout.bundle(session)
    try:
        directory.mkdir(mode=0o700)
        facts = bundle.host_facts(record.spec, record.state, layout, info, host)
        process = oci.process(record.spec, facts, request.argv, tty=False, env=request.env)
        (directory / "process.json").write_bytes(msgspec.json.encode(process))
        argv = host.command(arguments(info, layout, record.id, session), cwd=str(directory))
        return await _run(record, request, argv, directory)
    except OSError as error:
        raise ExecError(f"the command cannot be run: {error}") from error
    finally:
        layout.socket(session).unlink(missing_ok=True)
        remove_tree(directory)


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


def arguments(info: RuntimeInfo, layout: Layout, cid: str, session: str) -> list[str]:
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
    return [*words, "--exec-process-spec", f"{directory}/process.json"]


async def _run(record: ContainerRecord, request: Request, argv: list[str], directory: Path) -> ExecResult:
    # Ours and the monitor's end of: what it answers, where it waits, where it says that one may attach.
    sync, sync_end = os.pipe()
    start_end, start = os.pipe()
    attach, attach_end = os.pipe()
    ends = (sync_end, start_end, attach_end)
    names = ("_OCI_SYNCPIPE", "_OCI_STARTPIPE", "_OCI_ATTACHPIPE")
    environment = {**processes.ENVIRONMENT, **dict(zip(names, map(str, ends), strict=True))}
    monitor: subprocess.Popen[bytes] | None = None
    output: _Output | None = None
    try:
        try:
            monitor = processes.spawn(argv, environment=environment, pass_fds=ends, cwd=str(directory))
        finally:
            for fd in ends:
                os.close(fd)
        # It waits twice: before anything (to be placed), and before it runs the command.
        os.write(start, b"0")
        await conmon.first_line(attach)
        output = _Output(directory, request.max_output)
        os.write(start, b"0")
        code, timed_out = await _follow(record, request, sync)
        await processes.wait(monitor)
        output.close()
        streams, truncated = output.streams, output.truncated
        return ExecResult(
            code=code,
            stdout=bytes(streams[_STDOUT]),
            stderr=bytes(streams[_STDERR]),
            truncated=truncated,
            timed_out=timed_out,
        )
    finally:
        for fd in (sync, start, attach):
            os.close(fd)
        if output is not None:
            output.close()
        if monitor is not None and monitor.poll() is None:
            monitor.kill()
            monitor.wait()


async def _follow(record: ContainerRecord, request: Request, sync: int) -> tuple[int, bool]:
    """Read the monitor's two answers: pid, exit code. (exit code, timed out)"""
    lines = conmon.LineReader(sync)
    pid = _answer(await lines.next())
    timed_out = False
    try:
        try:
            async with asyncio.timeout(request.timeout):
                line = await lines.next()
        except TimeoutError:
            timed_out = True
            _kill(record, pid)
            line = await lines.next()
    except asyncio.CancelledError:
        _kill(record, pid)
        raise
    return _answer(line), timed_out


def _answer(line: bytes) -> int:
    if not line:
        raise ExecError("the command's monitor ended early")
    answer = conmon.decode_answer(line)
    if answer.data < 0:
        raise ExecError(conmon.runc_message(answer.message) or "the OCI runtime failed without a message")
    return answer.data


def _kill(record: ContainerRecord, pid: int) -> None:
    if processes.in_cgroup(pid, record.cgroup):
        processes.kill(pid)
