"""What hooks and probes do: run a command, ask by HTTP, connect by TCP. The same code serves both."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from nodewright.kube.objects import Container, HTTPGetAction, TCPSocketAction
from nodewright_agent.runtime.errors import ContainerRuntimeError
from nodewright_agent.runtime.spec import ExecResult

MAX_BODY = 10 * 1024
USER_AGENT = "kube-probe/1.36"


class Executor(Protocol):
    """What is needed of the runtime."""

    async def exec(
        self, cid: str, argv: Sequence[str], *, timeout: float | None = None, max_output: int = 1 << 20
    ) -> ExecResult:
        """Run a command in a container."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether it went well, and what to tell."""

    ok: bool
    text: str = ""


async def run_command(runtime: Executor, cid: str, argv: Sequence[str], timeout: float | None) -> Answer:
    """Run a command in the container; it goes well when it ends with 0 in time."""
    try:
        result = await runtime.exec(cid, argv, timeout=timeout, max_output=MAX_BODY)
    except ContainerRuntimeError as error:
        return Answer(False, str(error))
    if result.timed_out:
        return Answer(False, f"command timed out: {' '.join(argv)!r} timed out after {timeout:g}s")
    output = (result.stdout + result.stderr)[:MAX_BODY].decode(errors="replace")
    return Answer(result.code == 0, output)


async def http_get(action: HTTPGetAction, host: str, container: Container, timeout: float) -> Answer:
    """Ask by HTTP: 200 to 399 is well; certificates are not checked, connections not kept (as upstream's probes)."""
    url = http_url(action, host, container)
    given = {header.name: header.value for header in action.http_headers}
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", **given}
    connector = aiohttp.TCPConnector(ssl=_unverified(), force_close=True)
    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limit) as session,
            # A redirect to another host counts as success there; we never follow one off the pod.
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            body = (await response.content.read(MAX_BODY)).decode(errors="replace")
            if 200 <= response.status < 400:
                return Answer(True, body)
            return Answer(False, f"HTTP probe failed with statuscode: {response.status}")
    except TimeoutError:
        message = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Answer(False, f'Get "{url}": {message}')
    except (aiohttp.ClientError, ValueError) as error:
        return Answer(False, f'Get "{url}": {error}')


async def tcp_connect(action: TCPSocketAction, host: str, container: Container, timeout: float) -> Answer:
    """Connect by TCP and hang up."""
    target = action.host or host
    port = port_number(action.port, container)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(target, port)
    except TimeoutError:
        return Answer(False, f"dial tcp {target}:{port}: i/o timeout")
    except OSError as error:
        return Answer(False, f"dial tcp {target}:{port}: {error.strerror or error}")
    writer.close()
    return Answer(True)


def http_url(action: HTTPGetAction, host: str, container: Container) -> str:
    """Return the URL that an action means."""
    target = action.host or host
    shown = f"[{target}]" if ":" in target else target
    scheme = (action.scheme or "HTTP").lower()
    path = action.path or "/"
    return f"{scheme}://{shown}:{port_number(action.port, container)}{path if path.startswith('/') else '/' + path}"


def port_number(port: int | str, container: Container) -> int:
    """Return a port given by number, or by a name of the container's ports. Raises ValueError."""
    if isinstance(port, int):
        return port
    if port.isdecimal():
        return int(port)
    for one in container.ports:
        if one.name == port:
            return one.container_port
    raise ValueError(f"couldn't find port: {port!r} in container {container.name}")


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
