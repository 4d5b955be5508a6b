"""What hooks and probes do: run a command, ask by HTTP, connect by TCP. The same code serves both."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Protocol
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from nodewright.kube.objects import Container, HTTPGetAction, TCPSocketAction
from nodewright_agent.pods.backoff import format_duration
from nodewright_agent.runtime.errors import ContainerRuntimeError
from nodewright_agent.runtime.spec import ExecResult

MAX_BODY = 10 * 1024
_MAX_HEADER, _MAX_HEADERS = 64 << 10, 128
"""Bytes of one line before the body, and their number. Go takes 10 MiB of all."""
MAX_REDIRECTS = 10
PROBE_AGENT, HOOK_AGENT = "kube-probe/1.36", "kube-lifecycle/1.36"


class Executor(Protocol):
    """What is needed of the runtime."""

    async def exec(
        self, cid: str, argv: Sequence[str], *, timeout: float | None = None, max_output: int = 1 << 20
    ) -> ExecResult:
        """Run a command in a container."""


class Outcome(Enum):
    """How it went, in upstream's words. UNKNOWN: it could not be tried, which says nothing about the container."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """How it went, and what to tell."""

    outcome: Outcome
    text: str = ""

    @property
    def ok(self) -> bool:
        """It went well, if with a warning."""
        return self.outcome in (Outcome.SUCCESS, Outcome.WARNING)


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered in the end; ``redirected``: it sent us to another host, where we did not go.

    ``cut``: why the body did not come to its end, in Go's words; one that is longer than ``MAX_BODY`` may have none.
    """

    status: int
    body: str
    redirected: bool
    cut: str = ""


async def run_command(runtime: Executor, cid: str, argv: Sequence[str], timeout: float | None) -> Answer:
    """Run a command in the container; it goes well when it ends with 0 in time."""
    try:
        result = await runtime.exec(cid, argv, timeout=timeout, max_output=MAX_BODY)
    except ContainerRuntimeError as error:
        return Answer(Outcome.UNKNOWN, str(error))
    if result.timed_out:
        after = format_duration(timeout or 0)
        return Answer(Outcome.FAILURE, f'command timed out: "{" ".join(argv)}" timed out after {after}')
    output = (result.stdout + result.stderr)[:MAX_BODY].decode(errors="replace")
    return Answer(Outcome.SUCCESS if result.code == 0 else Outcome.FAILURE, output)


async def http_get(url: URL, action: HTTPGetAction, agent: str, timeout: float) -> Response | str:
    """Ask by HTTP/1.1 and return the answer, or what went wrong in Go's words.

    Certificates are not checked, connections not kept. Redirects are followed within the same host only.
    """
    headers = request_headers(action, agent)
    target = url
    connector = aiohttp.TCPConnector(ssl=_unverified(), force_close=True)
    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=limit,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            max_headers=_MAX_HEADERS,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        ) as session:
            for _ in range(MAX_REDIRECTS):
                async with session.get(target, headers=headers, allow_redirects=False) as response:
                    following = _following(response)
                    away = following is not None and following.host != url.host
                    if following is None or away:
                        body, cut = await _body(response.content)
                        return Response(response.status, body, away, cut)
                    target = following
        return f'Get "{target}": stopped after {MAX_REDIRECTS} redirects'
    except TimeoutError:
        return f'Get "{target}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    except (aiohttp.ClientError, ValueError) as error:
        return f'Get "{target}": {_reason(error, target)}'


async def _body(content: aiohttp.StreamReader) -> tuple[str, str]:
    """Read up to ``MAX_BODY``; also give why there is less, although the server had not ended."""
    data, cut = bytearray(), ""
    try:
        while len(data) < MAX_BODY and (piece := await content.read(MAX_BODY - len(data))):
            data += piece
    except TimeoutError:
        cut = "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
    except aiohttp.ClientError:
        cut = "unexpected EOF"
    return data.decode(errors="replace"), cut


async def tcp_connect(action: TCPSocketAction, host: str, container: Container, timeout: float) -> Answer:
    """Connect by TCP and hang up. Raises ValueError for a port name that the container has not."""
    target = action.host or host
    port = port_number(action.port, container)
    where = f"dial tcp {bracketed(target)}:{port}"
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(target, port)
    except TimeoutError:
        return Answer(Outcome.FAILURE, f"{where}: i/o timeout")
    except OSError as error:
        return Answer(Outcome.FAILURE, f"{where}: {connect_error(error)}")
    writer.close()
    return Answer(Outcome.SUCCESS)


def http_url(action: HTTPGetAction, host: str, container: Container) -> URL:
    """Return the URL that an action means. Raises ValueError for a port name that the container has not."""
    scheme = (action.scheme or "HTTP").lower()
    path = action.path or "/"
    port = port_number(action.port, container)
    place = f"{scheme}://{bracketed(action.host or host)}:{port}"
    return _url(place + (path if path.startswith("/") else "/" + path))


def request_headers(action: HTTPGetAction, agent: str) -> CIMultiDict[str]:
    """Return the headers of a request; the action's come first, and an empty one is not sent at all. Pure."""
    headers: CIMultiDict[str] = CIMultiDict((header.name, header.value) for header in action.http_headers)
    headers.setdefault("User-Agent", agent)
    headers.setdefault("Accept", "*/*")
    for name in ("User-Agent", "Accept"):
        if not headers[name]:
            del headers[name]
    return headers


def port_number(port: int | str, container: Container) -> int:
    """Return a port given by number, or by a name of the container's ports. Raises ValueError."""
    number: int | None = int(port) if isinstance(port, int) or port.isdecimal() else None
    if number is None:
        number = next((one.container_port for one in container.ports if one.name == port), None)
    if number is None:
        raise ValueError(f"couldn't find port: {port} in container {container.name}")
    if not 0 < number < 65536:
        raise ValueError(f"invalid port number: {number}")
    return number


def bracketed(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def connect_error(error: OSError) -> str:
    """Return Go's words for a connection that could not be made."""
    text = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
    return f"connect: {text[:1].lower()}{text[1:]}"


def _following(response: aiohttp.ClientResponse) -> URL | None:
    """Return where a response sends us; None where it does not."""
    if response.status not in (301, 302, 303, 307, 308):
        return None
    location = response.headers.get("Location")
    return response.url.join(_url(location)) if location else None


def _url(text: str) -> URL:
    """Read a URL and leave its escapes as they are; what may not stand in one is escaped."""
    return URL(quote(text, safe="%/:?#[]@!$&'()*+,;=~"), encoded=True)


def _reason(error: Exception, url: URL) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"dial tcp {bracketed(url.host or '')}:{url.port}: {connect_error(error.os_error)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"tls: {error.os_error}"
    return str(error) or type(error).__name__


@cache
def _unverified() -> ssl.SSLContext:
    # Not the default context: it would read the host's authorities, which nobody is checked against.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
