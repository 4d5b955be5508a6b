"""Small writes at a high rate: requests over connections of their own, without what a general client does for each.

A general client costs about 0.3 ms of CPU per request, which is most of what a scheduler spends on a Pod; this costs a
third of it. It knows one kind of request, with a JSON body, and reads of the answer the status and the body. Whatever
is not plain (no connection, a refusal, a proxy in between) is for `Client`, which tries again and tells why.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from urllib.parse import urlsplit

import msgspec

from nodewright.kube import metrics
from nodewright.kube.config import Config
from nodewright.kube.errors import ConfigError

CONNECT_TIMEOUT = 10.0
# In place of a status: the write may or may not have been done; or it surely was not, for nothing was sent.
NO_ANSWER = 0
NOT_SENT = -1
# More of headers or body than any answer to a write needs.
_LIMIT = 1 << 20


class Answer(msgspec.Struct, gc=False):
    """An HTTP status, or NO_ANSWER or NOT_SENT, and the body that came with it."""

    status: int
    body: bytes = b""


class ProtocolError(Exception):
    """What came is no answer that this can read."""


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. `is_usable`: open, and the last answer was read to its end."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
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
            answer = self._answer()
        except (ProtocolError, ValueError) as error:
            self._fail(error)
            self.abort()
            return
        if answer is not None:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(answer)

    def exchange(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future gets the answer once it has been read to its end."""
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

    def _answer(self) -> Answer | None:
        """The answer, once all of it is there; the next one starts with an empty buffer."""
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
        found = self._body(headers, status, end + 4)
        if found is None:
            return None
        body, stop = found
        if len(self._buffer) != stop:
            raise ProtocolError("more than one answer")
        self._buffer.clear()
        self._keeps = self._keeps and headers.get(b"connection") != b"close"
        return Answer(status, body)

    def _body(self, headers: dict[bytes, bytes], status: int, start: int) -> tuple[bytes, int] | None:
        """The body and where in the buffer it ends, None while it is not complete."""
        if status in (204, 304):
            return b"", start
        if headers.get(b"transfer-encoding") == b"chunked":
            return self._chunks(start)
        if b"content-length" not in headers:
            raise ProtocolError("an answer without an end")
        length = int(headers[b"content-length"])
        if not 0 <= length <= _LIMIT:
            raise ProtocolError(f"a body of {length} bytes")
        stop = start + length
        return (bytes(self._buffer[start:stop]), stop) if len(self._buffer) >= stop else None

    def _chunks(self, start: int) -> tuple[bytes, int] | None:
        at = start
        body = bytearray()
        while True:
            line = self._buffer.find(b"\r\n", at)
            if line < 0 or at - start > _LIMIT:
                if at - start > _LIMIT:
                    raise ProtocolError("a body too large")
                return None
            size = int(bytes(self._buffer[at:line]).partition(b";")[0], 16)
            if size < 0:
                raise ProtocolError("a chunk of negative size")
            body += self._buffer[line + 2 : line + 2 + size]
            at = line + 2 + size + 2
            if len(self._buffer) < at:
                return None
            if not size:
                # No trailers are asked for, so none come.
                return bytes(body), at


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
        return max((await self.ask("POST", path, body, timeout=timeout)).status, NO_ANSWER)

    async def ask(
        self, method: str, path: str, body: bytes, *, accept: str = "application/json", timeout: float = 30.0
    ) -> Answer:
        """Send a write with a JSON body, and give what was answered."""
        if self._config.proxy_url is not None:
            return Answer(NOT_SENT)
        async with self._slots:
            try:
                request = await self._request(method, path, body, accept)
                connection = await self._connection()
            except (OSError, ConfigError, ssl.SSLError):  # TimeoutError is an OSError
                return Answer(NOT_SENT)
            started = time.monotonic()
            try:
                async with asyncio.timeout(timeout):
                    answer = await connection.exchange(request)
            except (OSError, ProtocolError, ValueError):
                connection.abort()
                metrics.REST_REQUESTS.labels("<error>", method, self._authority).inc()
                return Answer(NO_ANSWER)
            except BaseException:
                connection.abort()
                raise
            if connection.is_usable:
                self._idle.append(connection)
            metrics.REST_REQUESTS.labels(str(answer.status), method, self._authority).inc()
            metrics.REST_DURATION.labels(method, self._authority).observe(time.monotonic() - started)
            return answer

    async def close(self) -> None:
        """Close the connections. More posts open new ones."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # TLS transports close a step later

    async def _request(self, method: str, path: str, body: bytes, accept: str) -> bytes:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", f"Host: {self._authority}", f"User-Agent: {self._agent}"]
        lines += [f"{name}: {value}" for name, value in (await self._config.headers()).items()]
        lines += [f"Accept: {accept}", "Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
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
