"""A system bus with logind on it, for hosts without systemd."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

from nodewright_agent.node import logind


class FakeBus:
    """A system bus with logind on it: answers four calls, hands out one end of a pipe, announces a shutdown."""

    def __init__(self, path: Path, longest: int) -> None:
        self.longest, self.members = longest, list[str]()
        self.held = asyncio.Event()
        self.read, self.write = os.pipe()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.setblocking(False)
        self.connection: socket.socket | None = None

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        self.connection, _ = await loop.sock_accept(self.listener)
        for answer in (b"OK 1234\r\n", b"AGREE_UNIX_FD\r\n", b""):
            line = b""
            while not line.endswith(b"\r\n"):
                line += await loop.sock_recv(self.connection, 1)
            if answer:
                await loop.sock_sendall(self.connection, answer)
        data = b""
        while True:
            message, used = logind.decode(data)
            if message is None:
                more = await loop.sock_recv(self.connection, 4096)
                if not more:
                    return
                data += more
                continue
            (serial,) = struct.unpack_from("<I", data, 8)
            data = data[used:]
            self.answer(serial, str(message.fields[3]))

    def answer(self, serial: int, member: str) -> None:
        assert self.connection is not None
        self.members.append(member)
        body = b"\x01t\0\0\0\0\0\0" + struct.pack("<Q", self.longest) if member == "Get" else b""
        head = self.message(2, serial, [(5, "u", serial)] + ([(9, "u", 1)] if member == "Inhibit" else []), body)
        if member == "Inhibit":
            socket.send_fds(self.connection, [head], [self.write])
            os.close(self.write)
            self.held.set()
        else:
            self.connection.send(head)

    def announce(self, down: bool) -> None:
        assert self.connection is not None
        self.connection.send(self.message(4, 99, [(3, "s", "PrepareForShutdown")], struct.pack("<I", down)))

    @staticmethod
    def message(kind: int, serial: int, fields: list[tuple[int, str, str | int]], body: bytes) -> bytes:
        made = b""
        for code, signature, value in fields:
            made += b"\0" * (-len(made) % 8) + bytes((code, 1)) + signature.encode() + b"\0"
            made += struct.pack("<I", value) if isinstance(value, int) else logind._text(value)
        head = struct.pack("<BBBBIII", ord("l"), kind, 0, 1, len(body), serial, len(made)) + made
        return head + b"\0" * (-len(head) % 8) + body

    def close(self) -> None:
        self.listener.close()
        if self.connection is not None:
            self.connection.close()
        os.close(self.read)
