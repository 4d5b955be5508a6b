"""Sending a log: from its start or its last lines to its end, and on as it grows, through rotations, until the exit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from nodewright_agent.server import logfile
from nodewright_agent.server.crilog import Renderer
from nodewright_agent.server.following import DirectoryWatcher
from nodewright_agent.server.logoptions import LogOptions

Write = Callable[[bytes], Awaitable[object]]

_CHUNK = 1 << 18
_LONGEST_LINE = 1 << 20  # runtimes write pieces of 16 KiB; what is longer was not written by one


class LogStream:
    """One reading of one log. Owns the file's descriptor; the directory's belongs to the caller."""

    def __init__(self, directory_fd: int, name: str, options: LogOptions, write: Write) -> None:
        """Open the log. Raises UnsafeLog, FileNotFoundError."""
        self._directory = directory_fd
        self._name = name
        self._options = options
        self._write = write
        self._renderer = Renderer(
            since=options.since,
            timestamps=options.timestamps,
            limit_bytes=options.limit_bytes,
            stream=options.stream,
        )
        self._fd = logfile.open_log(directory_fd, name)
        self._offset = 0
        self._pending = b""  # the start of a line whose end is not written yet
        self._skipping = False

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def start(self) -> None:
        """Go to where the output starts. Blocking reads happen in a thread: a disk may be slow."""
        if self._options.tail_lines is not None:
            self._offset = await asyncio.to_thread(logfile.tail_offset, self._fd, self._options.tail_lines)

    async def copy(self) -> None:
        """Send what is there now; what is written meanwhile is not waited for."""
        await self._drain(os.fstat(self._fd).st_size)
        await self._finish()

    async def follow(self, watcher: DirectoryWatcher, exited: Awaitable[None]) -> None:
        """Send what is there and what comes, until the container has exited and all is sent, or the limit is hit."""
        end = asyncio.ensure_future(exited)
        try:
            with watcher.watch(self._directory) as changed:
                end.add_done_callback(lambda _: changed.set())
                while True:
                    changed.clear()
                    last = end.done()  # asked before reading: what was written until the exit is then read
                    await self._catch_up()
                    if last or self._renderer.full:
                        break
                    await changed.wait()
            await self._finish()
        finally:
            if not end.done():
                end.cancel()
            await asyncio.gather(end, return_exceptions=True)

    async def _catch_up(self) -> None:
        await self._drain(None)
        if os.fstat(self._fd).st_size < self._offset:  # truncated in place
            self._offset, self._pending = 0, b""
            await self._drain(None)
        while not self._renderer.full and not logfile.is_current(self._directory, self._name, self._fd):
            await self._drain(None)  # the rest of the old file, written until it was rotated
            try:
                renewed = logfile.open_log(self._directory, self._name)
            except FileNotFoundError:
                return
            self.close()
            self._fd, self._offset, self._pending = renewed, 0, b""
            await self._drain(None)

    async def _drain(self, end: int | None) -> None:
        """Send up to the end of the file, or up to an offset."""
        while not self._renderer.full:
            want = _CHUNK if end is None else min(_CHUNK, end - self._offset)
            data = await asyncio.to_thread(os.pread, self._fd, want, self._offset) if want > 0 else b""
            if not data:
                return
            self._offset += len(data)
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        *lines, rest = (self._pending + data).split(b"\n")
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        self._pending = rest
        if len(rest) > _LONGEST_LINE:
            self._pending, self._skipping = b"", True
        out = []
        for line in lines:
            if self._renderer.full:
                break
            out.append(self._renderer.render(line))
        if text := b"".join(out):
            await self._write(text)

    async def _finish(self) -> None:
        """Send a last line that has no line feed: the container was killed while its output was written."""
        if self._pending and not self._skipping and not self._renderer.full:
            text = self._renderer.render(self._pending)
            self._pending = b""
            if text:
                await self._write(text)
