"""The attach socket of a monitor: packets, the end, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from nodewright_agent.runtime import attaching, attachsocket, processes
from nodewright_agent.runtime.attaching import MAX_HELD, Attachments
from nodewright_agent.runtime.attachsocket import AttachSocket
from nodewright_agent.runtime.errors import ContainerStateError
from nodewright_agent.runtime.spec import ContainerRecord, ContainerSpec, ContainerState, Phase
from nodewright_agent.runtime.store import Layout


class Monitor:
    """The other side of the socket, as a monitor has it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(directory / "attach"))
        self._listener.listen(200)
        self.clients: list[socket.socket] = []

    def listen(self, backlog: int) -> None:
        self._listener.listen(backlog)

    def accept(self) -> socket.socket:
        self.clients.append(self._listener.accept()[0])
        self.clients[-1].settimeout(10)
        return self.clients[-1]

    def close(self) -> None:
        for one in (self._listener, *self.clients):
            one.close()


class Sink:
    def __init__(self) -> None:
        self.data = b""
        self.gone = False

    async def write(self, data: bytes) -> None:
        if self.gone:
            raise BrokenPipeError
        self.data += data


class Source:
    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self.chunks, self.ends = list(chunks), ends

    async def read(self) -> bytes:
        if self.chunks:
            return self.chunks.pop(0)
        if not self.ends:
            await asyncio.Event().wait()
        return b""


class Streams:
    def __init__(self, stdin: Source | None = None, tty: bool = False) -> None:
        self.stdin, self.tty, self.sizes = stdin, tty, None
        self.stdout, self.stderr = Sink(), Sink()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "run", tmp_path / "state")


@pytest.fixture
def monitor(layout: Layout):
    made = Monitor(layout.bundle("c1"))
    yield made
    made.close()


def record(pid: int = 0, **fields) -> ContainerRecord:
    """``pid`` 0: this process, which does not end."""
    spec = ContainerSpec(
        id="c1", pod_uid="u", pod_name="p", pod_namespace="ns", name="main", lowers=["/"], argv=["x"], log_path="/l",
        cgroup_parent="/x", **fields
    )  # fmt: skip
    return ContainerRecord(spec=spec, state=ContainerState(phase=Phase.RUNNING, pid=pid or os.getpid()))


async def test_neighbours_of_one_stream_come_together(layout, monitor):
    connection = AttachSocket(layout.bundle("c1"))
    other = monitor.accept()
    for packet in (b"\2a", b"\2b", b"\3c", b"\2d"):
        other.send(packet)
    assert await connection.read() == [(2, b"ab"), (3, b"c"), (2, b"d")]
    other.close()
    assert await connection.read() == []
    connection.close()


async def test_what_was_sent_before_a_monitor_ended_with_unread_input(layout, monitor):
    """The kernel then tells of a reset before it gives what there is."""
    connection = AttachSocket(layout.bundle("c1"))
    other = monitor.accept()
    await connection.write(b"never read")
    other.send(b"\2last words")
    other.close()
    streams = Streams()
    await attachsocket.output(connection, streams)
    assert streams.stdout.data == b"last words"
    connection.close()


async def test_input_goes_in_packets_that_the_monitor_can_read(layout, monitor):
    connection = AttachSocket(layout.bundle("c1"))
    other = monitor.accept()
    feeding = asyncio.create_task(attachsocket.input_to(connection, Source(b"x" * 1_000_000, b"y"), end=False))
    got = b""
    while len(got) < 1_000_001:
        packet = await asyncio.to_thread(other.recv, 1 << 20)
        assert len(packet) < 32 << 10
        got += packet
    await feeding
    connection.end()
    assert await asyncio.to_thread(other.recv, 10) == b""
    assert got == b"x" * 1_000_000 + b"y"
    connection.close()


async def test_a_sink_that_is_gone_stops_nobody(layout, monitor):
    connection = AttachSocket(layout.bundle("c1"))
    other = monitor.accept()
    streams = Streams()
    streams.stderr.gone = True
    for packet in (b"\3a", b"\2b", b"\3c", b"\7d"):
        other.send(packet)
    other.close()
    await attachsocket.output(connection, streams)
    assert streams.stdout.data == b"b"
    connection.close()


async def attached(layout, monitor, streams, **fields) -> tuple[asyncio.Task[None], socket.socket]:
    task = asyncio.create_task(Attachments(layout).attach(record(**fields), streams))
    return task, await asyncio.to_thread(monitor.accept)


def received(other: socket.socket) -> bytes:
    """All that the monitor gets until the input's end."""
    got = b""
    while packet := other.recv(1 << 16):
        got += packet
    return got


async def test_the_input_of_stdin_once_ends_and_the_output_goes_on(layout, monitor):
    streams = Streams(Source(b"in"))
    task, other = await attached(layout, monitor, streams, stdin=True, stdin_once=True)
    assert await asyncio.to_thread(received, other) == b"in"
    other.send(b"\2out")
    other.close()
    await task
    assert streams.stdout.data == b"out"


@pytest.mark.parametrize("fields", [{}, {"tty": True}, {"tty": True, "stdin_once": True}])
async def test_otherwise_the_attachment_ends_with_the_input(layout, monitor, fields):
    task, other = await attached(layout, monitor, Streams(Source(b"in")), stdin=True, **fields)
    await task
    assert await asyncio.to_thread(received, other) == b"in"


async def test_the_input_of_a_container_without_one_is_dropped(layout, monitor):
    streams = Streams(Source(b"in", b"more"))
    task, other = await attached(layout, monitor, streams)
    other.send(b"\2out")
    other.close()
    await task
    assert streams.stdin is not None
    assert streams.stdin.chunks == []
    assert streams.stdout.data == b"out"


async def test_who_gives_no_input_does_not_end_that_of_stdin_once(layout, monitor):
    attachments, given = Attachments(layout), record(stdin=True, stdin_once=True)
    task = asyncio.create_task(attachments.attach(given, Streams()))
    other = await asyncio.to_thread(monitor.accept)
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait((task,))
    other.setblocking(False)
    with pytest.raises(BlockingIOError):  # neither data nor the end
        other.recv(1)
    with pytest.raises(BrokenPipeError):  # and the monitor does not wait for who is gone
        other.send(b"\2x")
    attachments.forget("c1")
    assert other.recv(1) == b""


async def test_connections_that_are_kept_are_bounded(layout, monitor):
    attachments, given = Attachments(layout), record(stdin=True, stdin_once=True)
    for _ in range(MAX_HELD):
        task = asyncio.create_task(attachments.attach(given, Streams()))
        await asyncio.to_thread(monitor.accept)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
    with pytest.raises(ContainerStateError, match=f"{MAX_HELD} times"):
        await attachments.attach(given, Streams())
    attachments.close()


async def test_a_container_whose_monitor_is_gone(layout):
    with pytest.raises(ContainerStateError, match="cannot attach to container c1"):
        await Attachments(layout).attach(record(), Streams())


async def test_a_monitor_that_accepts_nobody_stops_nobody(layout, monitor):
    monitor.listen(0)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            stack.enter_context(client)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(layout.bundle("c1") / "attach"))
        with pytest.raises(ContainerStateError, match="temporarily unavailable"):
            await Attachments(layout).attach(record(), Streams())


class StalledSink(Sink):
    async def write(self, data: bytes) -> None:
        await asyncio.Event().wait()


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(layout, monitor, monkeypatch):
    """The monitor waits for it until the connection is closed, and tells the container's end only then."""
    monkeypatch.setattr(attaching, "_LAST", 0.05)
    process = processes.spawn(["/bin/sleep", "1000"])
    streams = Streams()
    streams.stdout = StalledSink()
    try:
        attachments = Attachments(layout)
        task = asyncio.create_task(attachments.attach(record(process.pid, stdin=True, stdin_once=True), streams))
        other = await asyncio.to_thread(monitor.accept)
        other.send(b"\2x")
        _, pending = await asyncio.wait((task,), timeout=0.1)
        assert pending  # while the container runs, it may take its time
    finally:
        process.kill()
        process.wait()
    async with asyncio.timeout(10):
        await task
    assert other.recv(1) == b""
    assert attachments._held == {}


async def test_nothing_is_kept_for_a_container_that_has_ended(layout, monitor):
    attachments, given = Attachments(layout), record(stdin=True, stdin_once=True)
    task = asyncio.create_task(attachments.attach(given, Streams()))
    other = await asyncio.to_thread(monitor.accept)
    await asyncio.sleep(0.01)
    given.state.phase = Phase.EXITED
    attachments.forget("c1")
    task.cancel()
    await asyncio.wait((task,))
    assert other.recv(1) == b""


async def test_a_flood_leaves_the_loop_to_others(layout, monitor, monkeypatch):
    connection = AttachSocket(layout.bundle("c1"))
    turns = [[(2, b"x")]] * 1000

    async def read() -> list[tuple[int, bytes]]:
        return turns.pop() if turns else []

    monkeypatch.setattr(connection, "read", read)
    flood = asyncio.create_task(attachsocket.output(connection, Streams()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not flood.done()
    await flood
    connection.close()
