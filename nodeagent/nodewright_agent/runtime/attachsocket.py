"""A connection to a monitor's attach socket: the standard streams of what it watches.

The monitor sends packets: a byte that names the stream, and up to 8192 bytes of output. What it receives goes to the
standard input as it is; the end of it closes the input, unless the monitor was told to leave it open. A monitor waits
for a connection that does not read, and its container with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from nodewright_agent.runtime import processes
from nodewright_agent.runtime.streams import Sink, Source, Streams

STDOUT, STDERR = 2, 3
_PACKET = 8193
_SEND = 16 << 10
"""The monitor reads up to 32 KiB at a time, and drops what is behind."""
_TOGETHER = 64 << 10


class AttachSocket:
    """One connection, in the event loop."""

    def __init__(self, directory: Path) -> None:
        """Connect to the monitor of a bundle. Raises OSError: there is none (any more), or too many wait for it."""
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._loop = asyncio.get_running_loop()
        try:
            # Addresses of sockets are limited to 107 bytes; through a descriptor any directory is near.
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._socket.connect(f"/proc/self/fd/{fd}/attach")
            finally:
                os.close(fd)
        except OSError:
            self._socket.close()
            raise

    async def read(self) -> list[tuple[int, bytes]]:
        """What came next of (stream, output), neighbours of one stream together; empty at the end."""
        if (packet := self._receive()) is None:
            await processes.readable(self._socket.fileno())
            packet = self._receive() or b""
        return list(_merged(self._more(packet))) if packet else []

    async def write(self, data: bytes) -> None:
        """Send input; waits while the process takes none. Raises ConnectionError: it has ended."""
        for at in range(0, len(data), _SEND):
            await self._loop.sock_sendall(self._socket, data[at : at + _SEND])

    def end(self) -> None:
        """Say that no input follows; output is still read."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other side was faster

    def deafen(self) -> None:
        """Take no more output. While the socket is open the monitor does not take this for the input's end."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            return

    def close(self) -> None:
        """Close; idempotent."""
        self._socket.close()

    def _receive(self) -> bytes | None:
        """The next packet, None while there is none; empty at the end."""
        try:
            return self._socket.recv(_PACKET)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # Told once when the monitor ended with input that it had not read. What it had sent is there still.
            return self._socket.recv(_PACKET)

    def _more(self, packet: bytes) -> Iterator[bytes]:
        size = 0
        found: bytes | None = packet
        while found:
            yield found
            size += len(found)
            found = self._receive() if size < _TOGETHER else None


def _merged(packets: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    stream, chunks = 0, list[bytes]()
    for packet in packets:
        if packet[0] != stream and chunks:
            yield stream, b"".join(chunks)
            chunks = []
        stream = packet[0]
        chunks.append(packet[1:])
    yield stream, b"".join(chunks)


async def output(connection: AttachSocket, streams: Streams) -> None:
    """Hand all output on, to its end; a sink that is gone gets no more, and what it would get is dropped."""
    sinks: dict[int, Sink | None] = {STDOUT: streams.stdout, STDERR: streams.stderr}
    while found := await connection.read():
        for stream, data in found:
            if (sink := sinks.get(stream)) is None:
                continue
            try:
                await sink.write(data)
            except ConnectionError:
                sinks[stream] = None
        await asyncio.sleep(0)  # a flood that nobody waits for must not have the loop for itself


async def input_to(connection: AttachSocket, source: Source, *, end: bool) -> None:
    """Hand all input on, to its end, or until the process has ended; then, with ``end``, tell that no more comes."""
    try:
        while data := await source.read():
            await connection.write(data)
    except ConnectionError:
        pass  # it has ended
    if end:
        connection.end()
