"""The streaming server: Exec, Attach and PortForward answer with an address here, which is good for one use.

The address is all that a caller needs, so it is as good as a password: 128 random bits, forgotten at its first use and
after a minute. The server listens on loopback, from the first such call on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from multidict import MultiDict

from nodewright_agent.cri.containers import Containers
from nodewright_agent.cri.errors import Exhausted, Invalid, Unfit
from nodewright_agent.cri.parts import Parts
from nodewright_agent.pods.streams import RuntimeContainer, SandboxPorts
from nodewright_agent.server.streaming.options import BadQuery, RemoteOptions
from nodewright_agent.server.streaming.portforward import forward_options, serve_port_forward
from nodewright_agent.server.streaming.remotecommand import serve_attach, serve_exec
from nodewright_agent.server.streaming.upgrade import Limits, Refused, Sessions

LIFETIME = 60.0
"""Seconds in which an address must be used (k8s.io/kubelet's request cache has the same)."""
MOST = 1000
"""Addresses that wait for their use."""

Session = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Streaming:
    """Makes addresses and serves them."""

    def __init__(self, parts: Parts, containers: Containers) -> None:
        """Nothing listens yet."""
        self._parts, self._containers = parts, containers
        self._sessions = Sessions(Limits())
        self._waiting: dict[str, Session] = {}
        self._runner: web.AppRunner | None = None
        self._base = ""
        self._starting = asyncio.Lock()

    async def exec(self, request: Any) -> str:
        """The address for an ExecRequest. Raises CriError."""
        container = self._parts.records.container(request.container_id)
        options, argv = _options(request), list(request.cmd)
        if not argv:
            raise Invalid("cmd must not be empty")
        self._containers.running(container)
        target = RuntimeContainer(self._parts.runtime, container.id)
        return await self._address("exec", lambda http: serve_exec(self._sessions, http, options, argv, target))

    async def attach(self, request: Any) -> str:
        """The address for an AttachRequest. Raises CriError."""
        container = self._parts.records.container(request.container_id)
        options = _options(request)
        if request.tty != container.config.tty:
            raise Invalid(f"tty {request.tty}: the container was made with tty {container.config.tty}")
        self._containers.running(container)
        target = RuntimeContainer(self._parts.runtime, container.id)
        return await self._address("attach", lambda http: serve_attach(self._sessions, http, options, target))

    async def port_forward(self, request: Any) -> str:
        """The address for a PortForwardRequest. Raises CriError."""
        sandbox = self._parts.records.sandbox(request.pod_sandbox_id)
        paths = self._parts.sandboxes.get(sandbox.id)
        if not sandbox.ready or paths is None:
            raise Unfit(f'sandbox "{sandbox.id}" is not running')
        meta = sandbox.config.metadata
        ports = SandboxPorts(meta.name, meta.uid, paths.net)
        query = MultiDict(("port", str(port)) for port in request.port)

        def session(http: web.Request) -> Awaitable[web.StreamResponse]:
            return serve_port_forward(self._sessions, http, forward_options(http, query), ports)

        return await self._address("portforward", session)

    async def close(self) -> None:
        """End all sessions: commands are killed, containers go on."""
        self._waiting.clear()
        await self._sessions.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _address(self, kind: str, session: Session) -> str:
        await self._listen()
        if len(self._waiting) >= MOST:
            raise Exhausted(f"{MOST} streams have been asked for and not begun")
        path = f"/{kind}/{secrets.token_urlsafe(16)}"
        self._waiting[path] = session
        asyncio.get_running_loop().call_later(LIFETIME, self._waiting.pop, path, None)
        return self._base + path

    async def _listen(self) -> None:
        async with self._starting:
            if self._runner is not None:
                return
            app = web.Application()
            app.router.add_route("*", "/{kind}/{token}", self._serve)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            settings = self._parts.settings
            await web.TCPSite(runner, settings.stream_address, settings.stream_port).start()
            host, port = runner.addresses[0][:2]
            self._runner, self._base = runner, f"http://{host}:{port}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        session = self._waiting.pop(request.path, None)
        if session is None:
            return web.Response(status=404, text="no such stream: an address is good for one use within a minute\n")
        try:
            return await session(request)
        except BadQuery as error:
            return web.Response(status=400, text=f"{error}\n")
        except Refused as error:
            return error.response()


def _options(request: Any) -> RemoteOptions:
    if request.tty and request.stderr:
        raise Invalid("tty and stderr cannot both be true: a terminal has one output")
    if not (request.stdin or request.stdout or request.stderr):
        raise Invalid("one of stdin, stdout, or stderr must be set")
    return RemoteOptions(request.stdin, request.stdout, request.stderr, request.tty)
