"""Commands on streams, straight on the runtime: terminals, and what an interrupted one leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import pytest

from nodewright_agent.runtime import conmon, processes
from nodewright_agent.runtime.errors import ContainerStateError
from nodewright_agent.runtime.runtime import Runtime
from support.runtime_host import Host

pytestmark = pytest.mark.needs_root


class Streams:
    """A terminal of 100 x 30 that takes all output, and types nothing."""

    def __init__(self, tty: bool = True) -> None:
        self.tty, self.stdin, self.stderr = tty, None, None
        self.stdout = self.sizes = self
        self.text = b""
        self.due = [(100, 30)]

    async def write(self, data: bytes) -> None:
        self.text += data

    async def next(self) -> tuple[int, int] | None:
        if not self.due:
            await asyncio.Event().wait()
        return self.due.pop(0)


async def running(runtime: Runtime, host: Host) -> None:
    await runtime.create(host.spec("c1", "sleep", "1000"))
    await runtime.start("c1")


async def test_a_terminal_has_its_size_from_the_start(runtime: Runtime, host: Host):
    await running(runtime, host)
    streams = Streams()
    code = await runtime.stream("c1", ["/bin/busybox", "sh", "-c", "stty size; exit 3"], streams)
    assert (code, streams.text) == (3, b"30 100\r\n")


async def test_the_last_size_counts_when_the_monitor_is_slow(runtime: Runtime, host: Host):
    """kubectl gives a terminal one row and column too many first, and then its size, at once."""
    await runtime.create(host.spec("c1", "sleep", "1000", tty=True, stdin=True))
    await runtime.start("c1")
    record = runtime.find("c1")
    assert record is not None
    streams = Streams()
    streams.due = [(101, 31), (100, 30)]
    os.kill(record.state.monitor_pid, signal.SIGSTOP)
    attached = asyncio.create_task(runtime.attach("c1", streams))
    await asyncio.sleep(0.5)
    os.kill(record.state.monitor_pid, signal.SIGCONT)
    async with asyncio.timeout(20):
        while terminal_size(record.state.pid) != (100, 30):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.05)
    attached.cancel()
    await asyncio.wait((attached,))


def terminal_size(pid: int) -> tuple[int, int]:
    """Columns and lines of a process's terminal."""
    fd = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return tuple(os.get_terminal_size(fd))
    finally:
        os.close(fd)


@pytest.mark.parametrize("tty", [True, False])
async def test_nothing_is_left_of_commands_that_are_cancelled_at_any_moment(runtime: Runtime, host: Host, tty: bool):
    await running(runtime, host)
    before = sockets()
    for step in range(24):
        task = asyncio.create_task(runtime.stream("c1", ["sleep", "71234571"], Streams(tty)))
        await asyncio.sleep(0.006 * step)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
    async with asyncio.timeout(20):
        while any(processes.command_line(pid) == ["sleep", "71234571"] for pid in processes.all_pids()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [path.name for path in runtime.layout.bundles.iterdir()] == ["c1"]
    assert len(list(runtime.layout.sockets.iterdir())) == 1
    assert sockets() <= before


def sockets() -> set[str]:
    """What monitors may leave where they put sockets by default."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("conmon-term.*")}


async def test_a_log_is_not_waited_for_without_end(runtime: Runtime, host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conmon, "_PATIENCE", 0.3)
    await running(runtime, host)
    record = runtime.find("c1")
    assert record is not None
    os.kill(record.state.monitor_pid, signal.SIGSTOP)
    try:
        await runtime.reopen_log("c1")  # there is a log
        with pytest.raises(ContainerStateError, match="the log cannot be reopened"):
            await runtime.reopen_log("c1")  # the first order has not been read
    finally:
        os.kill(record.state.monitor_pid, signal.SIGCONT)
    await runtime.reopen_log("c1")
