"""Makes a port of this machine's loopback reachable on the loopback of a lab's namespace."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from integration.proxy.proxy_lab import inside


class PortForward:
    """Forwards connections to 127.0.0.1:port inside of a namespace to the same port here."""

    def __init__(self, namespace: Path, port: int) -> None:
        self._port = port
        with inside(namespace):
            self._listener = socket.create_server(("127.0.0.1", port))
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
                outer = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._sockets += [inner, outer]
            self._start(_pump, inner, outer)
            self._start(_pump, outer, inner)

    def close(self) -> None:
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(timeout=10)
        for sock in self._sockets:
            sock.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for sock in (source, target):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
