"""flock(2) for coroutines: several agents and commands share one image store."""

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def file_lock(path: Path, *, shared: bool = False) -> AsyncIterator[None]:
    """Hold a lock on `path` (made when missing), waiting without polling and without blocking the loop.

    Each entry opens the file anew, so two coroutines of one process exclude each other as two processes do.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        fd = await _wait(fd, how)
    except BaseException:
        os.close(fd)
        raise
    try:
        yield
    finally:
        os.close(fd)


async def _wait(fd: int, how: int) -> int:
    """Block in a thread of its own; when the waiter is cancelled the thread gives the lock back once it gets it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    guard = threading.Lock()
    state = {"wanted": True, "granted": False}

    def wait() -> None:
        fcntl.flock(fd, how)
        with guard:
            state["granted"] = True
            if not state["wanted"]:
                os.close(fd)
                return
        try:
            loop.call_soon_threadsafe(_grant, done)
        except RuntimeError:
            os.close(fd)  # the loop is gone

    # A daemon: the process must be able to end while another one holds the lock.
    threading.Thread(target=wait, name="image-lock", daemon=True).start()
    try:
        await done
    except BaseException:
        with guard:
            state["wanted"] = False
            if state["granted"]:
                os.close(fd)
        raise
    return fd


def _grant(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
