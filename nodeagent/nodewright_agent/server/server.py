"""The HTTPS server: kubelet's API on the node's port, with authentication and authorization before everything else."""

from __future__ import annotations

import asyncio
import logging
import ssl
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import prometheus_client
from aiohttp import web

from nodewright.kube.errors import ApiError, ConfigError
from nodewright.kube.objects import Pod
from nodewright_agent.server import cadvisor, stats
from nodewright_agent.server.authn import Authenticator
from nodewright_agent.server.authz import Authorizer, subresources, verb
from nodewright_agent.server.logs import LogsHandler
from nodewright_agent.server.streaming.backend import NodeStreams
from nodewright_agent.server.streaming.kubelet import StreamRoutes
from nodewright_agent.server.tls import ServingTLS
from nodewright_agent.server.view import NodeUsage, PodsView, StatsSource

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHUTDOWN = 1.0  # seconds that requests under way get when the server stops
_HANDSHAKE = 10.0  # seconds to finish a TLS handshake
_CLOSING = 2.0  # seconds to wait for a peer's TLS goodbye; Go's clients do not always send one
_LONGEST_LINE = 1 << 20  # bytes; a command is part of the request's first line. Go's servers take 1 MiB of headers


class KubeletServer:
    """Serves /healthz /pods /runningpods/ /configz /metrics (resource, cadvisor, probes) /stats/summary /containerLogs.

    And /exec, /attach, /portForward and /run, where it is told of ``streams``.

    Every request needs a client certificate of the cluster's authority, or a bearer token; what it may see is asked
    of the API server. When that can't be asked, the answer is no.
    """

    def __init__(
        self,
        pods: PodsView,
        *,
        node_name: str,
        tls: ServingTLS,
        authenticator: Authenticator,
        authorizer: Authorizer,
        streams: NodeStreams | None = None,
        stats: StatsSource | None = None,
        counters: Callable[[], str] | None = None,
        probes: Callable[[], str] | None = None,
        machine: tuple[int, int] = (0, 0),
        address: str = "0.0.0.0",
        port: int = 10250,
    ) -> None:
        """Take the parts; nothing listens before `start()`. Port 0 takes any free one (see `port`).

        `counters` writes what the agent adds to /metrics, `probes` writes /metrics/probes;
        `machine` are the host's processors and bytes of memory.
        """
        self._pods = pods
        self._node = node_name
        self._tls = tls
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._stats = stats
        self._counters, self._probes, self._machine = counters, probes, machine
        self._address = address
        self.port = port
        self._logs = LogsHandler(pods)
        self._streams = StreamRoutes(streams) if streams is not None else None
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def start(self) -> None:
        """Listen. Raises OSError (port in use, certificate files) or ssl.SSLError."""
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN,
            max_line_size=_LONGEST_LINE,
        )
        await runner.setup()
        try:
            assert runner.server is not None
            # not aiohttp's TCPSite, which leaves TLS timeouts at a minute and more
            self._listener = await asyncio.get_running_loop().create_server(
                runner.server,
                self._address,
                self.port,
                ssl=self._tls.context(),
                ssl_handshake_timeout=_HANDSHAKE,
                ssl_shutdown_timeout=_CLOSING,
                backlog=128,
            )
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = self._listener.sockets[0].getsockname()[1]
        logger.info("serving the node's API", extra={"address": self._address, "port": self.port})

    async def stop(self) -> None:
        """Stop listening and end what is under way; safe to call twice."""
        self._logs.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._streams is not None:
            await self._streams.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        for connection in list(self._connections):
            _abort(connection)
        await asyncio.sleep(0)  # the loop closes the sockets in its next step

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[_errors, self._authorize], client_max_size=1 << 16)
        table: list[tuple[str, Handler]] = [
            ("/healthz", self._healthz),
            ("/pods", self._all_pods),
            ("/runningpods/", self._running_pods),
            ("/configz", self._configz),
            ("/metrics", self._metrics),
            ("/metrics/resource", self._resource_metrics),
            ("/metrics/cadvisor", self._cadvisor),
            ("/metrics/probes", self._probe_metrics),
            ("/stats/summary", self._summary),
            ("/containerLogs/{namespace}/{pod}/{container}", self._logs.handle),
        ]
        for path, handler in table:
            app.router.add_get(path, handler, allow_head=False)
        if self._streams is not None:
            self._streams.add_to(app.router)
        return app

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            self._connections.add(transport)
        connection = transport.get_extra_info("ssl_object") if transport is not None else None
        certificate = connection.getpeercert() if isinstance(connection, (ssl.SSLObject, ssl.SSLSocket)) else None
        user = await self._authenticator.authenticate(certificate, request.headers.get("Authorization"))
        if user is None:
            return web.Response(status=401, text="Unauthorized")
        if not _is_plain(request.rel_url.raw_path):
            # No name in this API needs escapes, and what is decided on must be what is served.
            return web.Response(status=404, text="404 page not found\n")
        names = subresources(request.path)
        about = f"user={user.name}, verb={verb(request.method)}, resource=nodes"
        try:
            allowed = await self._authorizer.allowed(user, request.method, request.path)
        except (ApiError, ConfigError) as error:
            logger.warning("authorization of %s failed, the request is refused: %s", user.name, error)
            return web.Response(status=500, text=f"Authorization error ({about}, subresource={names[0]})")
        if not allowed:
            return web.Response(status=403, text=f"Forbidden ({about}, subresource(s)=[{' '.join(names)}])\n")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _all_pods(self, _: web.Request) -> web.Response:
        return _pod_list(self._pods.pods())

    async def _running_pods(self, _: web.Request) -> web.Response:
        return _pod_list(self._pods.running_pods())

    async def _configz(self, _: web.Request) -> web.Response:
        return _json({"kubeletconfig": dict(self._pods.config())})

    async def _metrics(self, _: web.Request) -> web.Response:
        own = self._counters().encode() if self._counters is not None else b""
        body = prometheus_client.generate_latest() + own
        return web.Response(body=body, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def _resource_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=stats.resource_metrics(await self._usage(whole=False)))

    async def _cadvisor(self, _: web.Request) -> web.Response:
        return web.Response(text=cadvisor.metrics(await self._usage(), *self._machine))

    async def _probe_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._probes() if self._probes is not None else "")

    async def _summary(self, request: web.Request) -> web.Response:
        brief = request.query.get("only_cpu_and_memory") in ("true", "1")
        usage = await self._usage()
        if usage is None:
            return web.Response(status=503, text="usage can't be read on this node\n")
        return _json(stats.summary(self._node, usage, only_cpu_and_memory=brief))

    async def _usage(self, *, whole: bool = True) -> NodeUsage | None:
        if self._stats is None:
            return None
        try:
            return await (self._stats.usage() if whole else self._stats.cgroups())
        except OSError as error:
            logger.warning("usage can't be read: %s", error)
            return None


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep tracebacks in the log, and out of answers."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.Response(status=error.status, text=f"{error.status} {error.reason}\n")
    except ConnectionError:
        raise
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return web.Response(status=500, text="internal error; the node agent's log has the details\n")


def _is_plain(raw_path: str) -> bool:
    return "%" not in raw_path and "//" not in raw_path and not {".", ".."} & set(raw_path.split("/"))


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _pod_list(pods: Sequence[Pod]) -> web.Response:
    return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)})


def _abort(connection: asyncio.Transport) -> None:
    try:
        connection.abort()
    except AttributeError:
        # asyncio of Python 3.11.2 (Debian 12) loses the protocol of a TLS transport that was closed twice; its
        # shutdown has begun then, and ends by itself.
        pass
