"""A server for probes: health checks of gRPC, redirects and headers of HTTP; its answers can be changed any time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

_SETTINGS = b"\0\0\0\4\0\0\0\0\0"


class ProbeServer:
    """Answers each connection by what it says first: HTTP/2 by the health status, HTTP/1.1 by ``reply``."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.status = 1
        """SERVING; 2: NOT_SERVING."""
        self.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.requests: list[bytes] = []
        self._socket = socket.create_server((address, 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                request = connection.recv(65536)
                self.requests.append(request)
                connection.sendall(self._health() if request.startswith(b"PRI ") else self.reply)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    def _health(self) -> bytes:
        message = bytes([8, self.status])
        data = struct.pack(">BI", 0, len(message)) + message
        # Header fields from the static table, or as literals: :status 200, and grpc-status 0.
        trailers = b"\x10\x0bgrpc-status\x010"
        return _SETTINGS + _frame(1, 4, b"\x88") + _frame(0, 0, data) + _frame(1, 5, trailers)


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", 1) + payload
