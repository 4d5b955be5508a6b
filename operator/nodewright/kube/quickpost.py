"""Small writes at a high rate: POSTs over connections of their own, without what a general client does for each.

A general client costs about 0.3 ms of CPU per request, which is most of what a scheduler spends on a Pod; this costs a
third of it. It knows one kind of request and reads of the answer no more than the status. Whatever is not plain (no
connection, a refusal, a proxy in between) it leaves to `Client`, which tries again and tells why.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from urllib.parse import urlsplit

from nodewright.kube import metrics
from nodewright.kube.config import Config
from nodewright.kube.errors import ConfigError

CONNECT_TIMEOUT = 10.0
NO_ANSWER = 0
# More of headers or body than any answer to a POST needs.
_LIMIT = 1 << 20


class ProtocolError(Exception):
    """What came is no answer that this can read."""


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. `is_usable`: open, and the last answer was read to its end."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self._keeps = True

    @property
    def is_usable(self) -> bool:
        return self._keeps and self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._waiter is None:
            self.abort()  # nobody asked
            return
        try:
            status = self._answer()
        except (ProtocolError, ValueError) as error:
            self._fail(error)
            self.abort()
            return
        if status is not None:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(status)

    def exchange(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future gets the status once the answer has been read to its end."""
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def abort(self) -> None:
        """Cut the connection; nobody waits for a goodbye."""
        self._keeps = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        self._keeps = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _answer(self) -> int | None:
        """The status, once the whole answer is there; the next one starts with an empty buffer."""
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _LIMIT:
                    raise ProtocolError("endless headers")
                return None
            lines = bytes(self._buffer[:end]).split(b"\r\n")
            version, _, rest = lines[0].partition(b" ")
            status = int(rest[:3])
            if version != b"HTTP/1.1":
                raise ProtocolError(f"not HTTP/1.1: {lines[0][:20]!r}")
            if status >= 200:
                break
            del self._buffer[: end + 4]  # an interim answer; the real one follows
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip().lower()
        length = self._body_length(headers, status, end + 4)
        if length is None:
            return None
        if len(self._buffer) != end + 4 + length:
            raise ProtocolError("more than one answer")
        self._buffer.clear()
        self._keeps = self._keeps and headers.get(b"connection") != b"close"
        return status

    def _body_length(self, headers: dict[bytes, bytes], status: int, start: int) -> int | None:
        """How many bytes the body takes, None while it is not complete."""
        if status in (204, 304):
            return 0
        if headers.get(b"transfer-encoding") == b"chunked":
            return self._chunks_length(start)
        if b"content-length" not in headers:
            raise ProtocolError("an answer without an end")
        length = int(headers[b"content-length"])
        if not 0 <= length <= _LIMIT:
            raise ProtocolError(f"a body of {length} bytes")
        return length if len(self._buffer) >= start + length else None

    def _chunks_length(self, start: int) -> int | None:
        at = start
        while True:
            line = self._buffer.find(b"\r\n", at)
            if line < 0 or at - start > _LIMIT:
                if at - start > _LIMIT:
                    raise ProtocolError("a body too large")
                return None
            size = int(bytes(self._buffer[at:line]).partition(b";")[0], 16)
            if size < 0:
                raise ProtocolError("a chunk of negative size")
            at = line + 2 + size + 2
            if len(self._buffer) < at:
                return None
            if not size:
                # No trailers are asked for, so none come.
                return at - start


class QuickPoster:
    """Keeps up to `connections` connections to the API server, opened when needed."""

    def __init__(self, config: Config, *, user_agent: str, connections: int) -> None:
        """Keep the settings; nothing is sent before the first post."""
        self._config = config
        parts = urlsplit(config.server)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path
        self._authority = parts.netloc
        self._agent = user_agent
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._context: ssl.SSLContext | None = None

    async def post(self, path: str, body: bytes, *, timeout: float = 30.0) -> int:
        """Post JSON. Gives the HTTP status, or NO_ANSWER: then the write may or may not have been done."""
        if self._config.proxy_url is not None:
            return NO_ANSWER
        async with self._slots:
            try:
                request = await self._request(path, body)
                connection = await self._connection()
            except (OSError, ConfigError, ssl.SSLError):  # TimeoutError is an OSError
                return NO_ANSWER
            started = time.monotonic()
            try:
                async with asyncio.timeout(timeout):
                    status = await connection.exchange(request)
            except (OSError, ProtocolError, ValueError):
                connection.abort()
                metrics.REST_REQUESTS.labels("<error>", "POST", self._authority).inc()
                return NO_ANSWER
            except BaseException:
                connection.abort()
                raise
            if connection.is_usable:
                self._idle.append(connection)
            metrics.REST_REQUESTS.labels(str(status), "POST", self._authority).inc()
            metrics.REST_DURATION.labels("POST", self._authority).observe(time.monotonic() - started)
            return status

    async def close(self) -> None:
        """Close the connections. More posts open new ones."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # TLS transports close a step later

    async def _request(self, path: str, body: bytes) -> bytes:
        lines = [f"POST {self._prefix}{path} HTTP/1.1", f"Host: {self._authority}", f"User-Agent: {self._agent}"]
        lines += [f"{name}: {value}" for name, value in (await self._config.headers()).items()]
        lines += ["Accept: application/json", "Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body

    async def _connection(self) -> _Connection:
        context = self._config.ssl_context
        if context is not self._context:
            # The certificate was renewed: the next request shows the new one.
            self._context = context
            for old in self._idle:
                old.abort()
            self._idle.clear()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection,
                self._host,
                self._port,
                ssl=context,
                server_hostname=(self._config.server_hostname or self._host) if context is not None else None,
            )
        return connection
