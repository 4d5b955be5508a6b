"""HTTP with the API server: connections, credentials, retries, limits, metrics, errors. No Kubernetes objects here."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from nodewright.kube import metrics
from nodewright.kube.config import Config
from nodewright.kube.errors import ConfigError, ServerUnavailable, Unauthorized, from_response
from nodewright.kube.ratelimit import RateLimiter

CONNECT_TIMEOUT = 10.0
REQUEST_TIMEOUT = 60.0
_MAX_RETRIES = 10  # client-go's: answers 429 and 5xx that carry Retry-After
_MAX_CONNECT_RETRIES = 3  # reads only
_MAX_RETRY_AFTER = 60.0
_ERROR_BODY = 1 << 20

Params = Mapping[str, str]


class Transport:
    """Holds the connections. Watches are not counted against `max_connections`, or they would starve requests."""

    def __init__(self, config: Config, *, user_agent: str, qps: float | None, burst: int, max_connections: int) -> None:
        """Keep the settings; the session is opened by the first request, in the loop that makes it."""
        self.config = config
        self._host = URL(config.server).authority
        self._agent = user_agent
        self._limiter = RateLimiter(qps, max(1, burst)) if qps else None
        self._slots = asyncio.Semaphore(max_connections)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("this Client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
                auto_decompress=True,
                read_bufsize=1 << 18,
                # Compression costs more time than it saves inside a cluster.
                headers={"User-Agent": self._agent, "Accept-Encoding": "identity"},
                skip_auto_headers={"Content-Type"},
            )
        return self._session

    async def close(self) -> None:
        """Close all connections. Requests under way fail; safe to call twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None
            # TLS transports close a step later; without this step the interpreter reports them as leaked
            await asyncio.sleep(0)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None,
        body: bytes | None,
        content_type: str,
        accept: str,
        timeout: float | None,
        retry_busy: bool = True,
    ) -> bytes:
        """Send and read the whole answer; retries what is safe to retry, 429 if `retry_busy`. Raises ApiError."""
        limits = aiohttp.ClientTimeout(total=timeout or REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        retries = connect_retries = 0
        reauthenticated = False
        while True:
            try:
                async with self._slots, self._exchange(method, path, params, body, content_type, accept, limits) as r:
                    data = await self._read(r, f"{method} {path}")
                if r.status < 300:
                    return data
            except ServerUnavailable as error:
                connect_retries += 1
                if method not in ("GET", "HEAD") or connect_retries > _MAX_CONNECT_RETRIES or error.reason == "Timeout":
                    raise
                metrics.REST_RETRIES.labels("<error>", method, self._host).inc()
                await asyncio.sleep(jitter(0.1 * 2**connect_retries))
                continue
            if r.status == 401 and not reauthenticated and self.config.invalidate():
                reauthenticated = True
                continue
            after = retry_after(r.headers.get("Retry-After"))
            is_busy = (r.status == 429 and retry_busy) or (r.status >= 500 and after is not None)
            if is_busy and retries < _MAX_RETRIES:
                retries += 1
                metrics.REST_RETRIES.labels(str(r.status), method, self._host).inc()
                await asyncio.sleep(jitter(min(after if after is not None else 0.5 * 2**retries, _MAX_RETRY_AFTER)))
                continue
            raise from_response(r.status, data, after, f"{method} {path}")

    @asynccontextmanager
    async def stream(
        self, path: str, params: Params, accept: str, idle: float | None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Open a watch or a log; `idle` is how long it may be silent. Statuses other than 200 raise ApiError."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=idle)
        async with self._exchange("GET", path, params, None, "", accept, limits) as response:
            if response.status != 200:
                after = retry_after(response.headers.get("Retry-After"))
                data = await self._read(response, f"WATCH {path}")
                if response.status == 401:
                    self.config.invalidate()
                raise from_response(response.status, data, after, f"WATCH {path}")
            try:
                yield response.content
            except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
                raise self._unavailable("WATCH", path, error) from error

    async def _read(self, response: aiohttp.ClientResponse, what: str) -> bytes:
        try:
            if response.status < 300:
                return await response.read()
            return await _bounded(response.content, _ERROR_BODY)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(what, "", error) from error

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        params: Params | None,
        body: bytes | None,
        content_type: str,
        accept: str,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._limiter is not None:
            waited = await self._limiter.acquire()
            metrics.RATE_LIMITER_DURATION.labels(method, self._host).observe(waited)
        session = self._open()
        try:
            headers = await self.config.headers()
            context = self.config.ssl_context
        except ConfigError as error:  # a plugin or token file that fails now may work again later
            raise Unauthorized(0, "Unauthorized", f"no credentials for {self.config.server}: {error}") from error
        headers["Accept"] = accept
        if body is not None:
            headers["Content-Type"] = content_type
        url = URL(
            f"{self.config.server}{path}?{urlencode(params)}" if params else self.config.server + path, encoded=True
        )
        started = asyncio.get_running_loop().time()
        try:
            response = await session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=limits,
                allow_redirects=False,  # a redirect would carry the token elsewhere
                ssl=context if context is not None else True,
                server_hostname=self.config.server_hostname,
                proxy=self.config.proxy_url,
            )
        except (aiohttp.ClientError, OSError) as error:
            metrics.REST_REQUESTS.labels("<error>", method, self._host).inc()
            raise self._unavailable(method, path, error) from error
        metrics.REST_REQUESTS.labels(str(response.status), method, self._host).inc()
        metrics.REST_DURATION.labels(method, self._host).observe(asyncio.get_running_loop().time() - started)
        try:
            yield response
        finally:
            # An answer that was read to its end has given its connection back already; anything else is cut off. abort
            # instead of a TLS goodbye, for which nobody would wait when the loop ends right after.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()

    def _unavailable(self, method: str, path: str, error: Exception) -> ServerUnavailable:
        timed_out = isinstance(error, TimeoutError)
        reason = "Timeout" if timed_out else "ServerUnavailable"
        what = "no answer in time" if timed_out else _failure(error)
        return ServerUnavailable(0, reason, f"{method} {self.config.server}{path}: {what}")


def _failure(error: Exception) -> str:
    """What went wrong, in words for users; aiohttp's own sentence shows Python objects."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(error) or type(error).__name__
    cause = error.os_error
    # asyncio puts the address in the place of the system's text; TLS and name errors have numbers of their own
    plain = isinstance(cause, ConnectionError) or type(cause) is OSError
    return f"cannot connect: {os.strerror(cause.errno) if plain and cause.errno else cause}"


async def _bounded(content: aiohttp.StreamReader, limit: int) -> bytes:
    """Read to the end or up to `limit` bytes; one read() gives only what has arrived."""
    body = bytearray()
    while len(body) < limit and (chunk := await content.read(limit - len(body))):
        body += chunk
    return bytes(body)


def retry_after(header: str | None) -> float | None:
    """Read Retry-After in seconds; dates and nonsense count as absent, negative numbers as none."""
    if header is None or not header.strip().isascii() or not header.strip().isdigit():
        return None
    return float(header.strip()[:9])


def jitter(seconds: float) -> float:
    """Spread waits by up to a half, so that clients that failed together do not come back together."""
    return seconds * (1.0 + random.random() * 0.5)
