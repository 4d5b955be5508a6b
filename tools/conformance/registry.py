"""A registry that only gives: the distribution API's pull half over a folder of blobs, by plain HTTP."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from conformance.oci import MANIFEST, BlobStore

_REQUEST = re.compile(r"/v2/(?P<name>[a-z0-9._/-]+)/(?P<kind>manifests|blobs)/(?P<reference>[A-Za-z0-9._:-]+)")
_IP_FREEBIND = 15  # linux/in.h; Python has no name for it


class Registry:
    """Serves `store` at `address` in a thread of this process, until `close`.

    `domain` is the registry whose place it takes: `NAME:TAG` is looked up as `DOMAIN/NAME:TAG`.
    The address need not exist yet (the cluster's bridge, at first): it may be bound before.
    """

    def __init__(self, store: BlobStore, domain: str, address: str) -> None:
        self._server = _Server((address, 0), store, domain)
        self.url = f"http://{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="registry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], store: BlobStore, domain: str) -> None:
        self.store, self.domain, self.known = store, domain, store.names()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        # not HTTPServer's: it would look the address up in the DNS
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up: agents are killed on purpose."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Manifests and blobs."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without the body."""
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the agents' logs tell what was pulled."""

    def _answer(self, *, body: bool) -> None:
        server = cast(_Server, self.server)
        if self.path in ("/v2", "/v2/"):
            return self._send(HTTPStatus.OK, "application/json", b"{}", body=body)
        match = _REQUEST.fullmatch(self.path)
        digest = None if match is None else _digest(server, match)
        path = None if digest is None else server.store.path(digest)
        if match is None or digest is None or path is None or not path.is_file():
            error = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such image here"}]}'
            return self._send(HTTPStatus.NOT_FOUND, "application/json", error, body=body)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", MANIFEST if match["kind"] == "manifests" else "application/octet-stream")
        self.send_header("Content-Length", str(path.stat().st_size))
        self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if body:
            with path.open("rb") as file:
                shutil.copyfileobj(file, self.wfile, 1 << 20)
        return None

    def _send(self, status: HTTPStatus, kind: str, data: bytes, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def _digest(server: _Server, match: re.Match[str]) -> str | None:
    reference = match["reference"]
    if re.fullmatch(r"sha256:[0-9a-f]{64}", reference):
        return reference
    return server.known.get(f"{server.domain}/{match['name']}:{reference}")
