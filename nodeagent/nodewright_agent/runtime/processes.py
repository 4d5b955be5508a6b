"""Child processes without threads or forks of this (large) process: vfork + pidfd readiness in the loop.

asyncio's own subprocess support starts a thread per child on Python 3.11; and it would keep the transport of
a monitor that outlives us.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""All that runc and conmon get: no LISTEN_FDS, no NOTIFY_SOCKET, no proxies, nothing of ours."""


def spawn(
    argv: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    environment: Mapping[str, str] = ENVIRONMENT,
    pass_fds: Sequence[int] = (),
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program with only the named descriptors open. Raises OSError when it cannot be executed.

    subprocess uses vfork here (no preexec_fn): about 1 ms, whatever our size.
    """
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=dict(environment),
        pass_fds=pass_fds,
        cwd=cwd,
        close_fds=True,
    )


def detach(process: subprocess.Popen[bytes]) -> None:
    """Give a child up: it is to outlive us, or be reaped through its pidfd (``reap``)."""
    # Otherwise Popen warns when it is collected, and tries to reap by number.
    process.returncode = 0


def reap(pidfd: int) -> None:
    """Take the exit status of an ended process when it is a child of ours, so that no zombie stays."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def in_cgroup(pid: int, path: str) -> bool:
    """Whether a process belongs to the cgroup or one below it: a pid alone may have been used again."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    places = {line.split(":", 2)[2] for line in lines}
    return any(place == path or place.startswith(f"{path}/") for place in places)


async def readable(fd: int) -> None:
    """Wait until ``fd`` has something to say (data, end, error; for a pidfd: the process ended)."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, lambda: None if future.done() else future.set_result(None))
    try:
        await future
    finally:
        loop.remove_reader(fd)


async def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child of ours; its exit code (negative: signal)."""
    if (code := process.poll()) is None:
        pidfd = os.pidfd_open(process.pid)
        try:
            await readable(pidfd)
        finally:
            os.close(pidfd)
        code = process.wait()
    return code


def open_pidfd(pid: int) -> int | None:
    """A descriptor of any process, child or not; None when it has ended."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # EINVAL: the pid still exists but no process has it any more (it is being released, or names a session).
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise


async def gone(pid: int) -> None:
    """Wait until any process, child or not, has ended."""
    if (pidfd := open_pidfd(pid)) is None:
        return
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)


async def run(argv: Sequence[str], *, timeout: float, stdout: int | None = None) -> tuple[int, bytes]:
    """Run a small helper; (exit code, first 64 KiB of stdout and stderr together).

    With ``stdout``, a descriptor, that stream goes there instead; it stays the caller's.
    """
    read_end, write_end = os.pipe()
    try:
        process = spawn(argv, stdout=write_end if stdout is None else stdout, stderr=write_end)
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    try:
        async with asyncio.timeout(timeout):
            output = await read_all(read_end, 65536)
            return await wait(process), output
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        os.close(read_end)


async def read_all(fd: int, limit: int) -> bytes:
    """Read until the end or ``limit`` bytes, without blocking the loop."""
    os.set_blocking(fd, False)
    chunks: list[bytes] = []
    size = 0
    while size < limit:
        try:
            chunk = os.read(fd, min(65536, limit - size))
        except BlockingIOError:
            await readable(fd)
            continue
        if not chunk:
            break
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it is gone or a zombie."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in data.rstrip(b"\0").split(b"\0")] if data else []


def started(pid: int) -> float:
    """When a process began, in Unix seconds, to the hundredth; infinity when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return math.inf
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def all_pids() -> Iterator[int]:
    """Every process that /proc shows."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def with_argument(prefix: str) -> list[int]:
    """Processes other than this one with an argument that is ``prefix`` or a path below it.

    That is how a monitor or runtime is found whose agent was killed before it wrote down the pid.
    """
    inside = prefix.rstrip("/") + "/"
    found = []
    for pid in all_pids():
        words = command_line(pid)
        name = os.path.basename(words[0]) if words else ""
        if name.startswith(("conmon", "runc", "crun", "nsenter")) and any(
            word == prefix or word.startswith(inside) or f"={inside}" in word or word.endswith(f"={prefix}")
            for word in words
        ):
            found.append(pid)
    return found


def protect(pid: int, score: int) -> None:
    """Set how readily the kernel kills a process when memory runs out (oom_score_adj, -1000 to 1000: at once)."""
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process; one that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_gone(pids: Iterable[int], deadline: float) -> None:
    """Block until the processes have ended or ``time.monotonic()`` passes ``deadline``; children of ours are reaped."""
    poll = select.poll()
    waiting = set()
    try:
        for pid in pids:
            if (fd := open_pidfd(pid)) is None:
                continue
            waiting.add(fd)
            poll.register(fd, select.POLLIN)
        while waiting:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                return
            for fd, _ in ready:
                poll.unregister(fd)
                waiting.discard(fd)
                reap(fd)
                os.close(fd)
    finally:
        for fd in waiting:
            os.close(fd)
