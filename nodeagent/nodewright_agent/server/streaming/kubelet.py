"""kubelet's routes for streams: /exec, /attach, /portForward, and /run. Answers and texts are kubelet's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from nodewright.kube.objects import Pod
from nodewright_agent.server.streaming import options
from nodewright_agent.server.streaming.backend import (
    Container,
    ContainerElsewhere,
    NodeStreams,
    PortsElsewhere,
    StreamError,
)
from nodewright_agent.server.streaming.forward import forward
from nodewright_agent.server.streaming.options import BadQuery
from nodewright_agent.server.streaming.portforward import forward_options, serve_port_forward
from nodewright_agent.server.streaming.remotecommand import serve_attach, serve_exec
from nodewright_agent.server.streaming.upgrade import Limits, Refused, Sessions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_POD = "/{namespace}/{pod}"
_CONTAINER = (f"{_POD}/{{container}}", f"{_POD}/{{uid}}/{{container}}")


class _Answer(Exception):
    """The request is answered with this."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class StreamRoutes:
    """Handlers of one server, and the sessions that they have begun."""

    def __init__(self, node: NodeStreams, limits: Limits | None = None) -> None:
        """Take what the streams lead to, and the bounds of sessions."""
        self._node = node
        self._sessions = Sessions(limits or Limits())

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes, with the methods that kubelet has for them."""
        for path in _CONTAINER:
            self._add(router, ("GET", "POST"), "/exec" + path, self._exec)
            self._add(router, ("GET", "POST"), "/attach" + path, self._attach)
            self._add(router, ("POST",), "/run" + path, self._run)
        for path in (_POD, _POD + "/{uid}"):
            self._add(router, ("GET", "POST"), "/portForward" + path, self._port_forward)

    async def close(self) -> None:
        """End all sessions: commands are killed, containers go on."""
        await self._sessions.close()

    @staticmethod
    def _add(router: web.UrlDispatcher, methods: tuple[str, ...], path: str, handler: Handler) -> None:
        async def answered(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except BadQuery as error:
                return _text(400, str(error))
            except _Answer as error:
                return _text(error.status, str(error))
            except Refused as error:
                return error.response()

        for method in methods:
            router.add_route(method, path, answered)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        wanted = options.remote_options(request.query)
        container = self._container(request, self._pod(request), 'container not found ("{container}")')
        argv = request.query.getall("command", [])
        if isinstance(container, ContainerElsewhere):
            return await self._forward(request, container.exec_url(argv, wanted))
        return await serve_exec(self._sessions, request, wanted, argv, container)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        wanted = options.remote_options(request.query)
        container = self._container(request, self._pod(request), "container {container} not found in pod {full}")
        if isinstance(container, ContainerElsewhere):
            return await self._forward(request, container.attach_url(wanted))
        return await serve_attach(self._sessions, request, wanted, container)

    async def _run(self, request: web.Request) -> web.StreamResponse:
        container = self._container(request, self._pod(request), 'container not found ("{container}")')
        argv = request.query.get("cmd", "").split(" ")
        try:
            code, stdout, stderr = await container.output(argv)
        except StreamError as error:
            raise _Answer(500, str(error)) from None
        if code:
            said = stderr.decode(errors="replace")
            raise _Answer(500, f"command '{' '.join(argv)}' exited with {code}: {said}")
        return web.Response(body=stdout + stderr, content_type="application/json")

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        ports = forward_options(request, request.query)
        pod = self._pod(request)
        uid = request.match_info.get("uid", "")
        if uid and not self._node.has_uid(pod, uid):
            raise _Answer(404, "pod not found")
        network = self._node.ports(pod)
        if network is None:
            raise _Answer(500, f"failed to find sandboxID for pod {_full(pod)}")
        if isinstance(network, PortsElsewhere):
            return await self._forward(request, network.url(ports))
        return await serve_port_forward(self._sessions, request, ports, network)

    async def _forward(self, request: web.Request, url: Awaitable[str]) -> web.StreamResponse:
        try:
            found = await url
        except StreamError as error:
            raise _Answer(500, str(error)) from None
        return await forward(self._sessions, request, found)

    def _pod(self, request: web.Request) -> Pod:
        pod = self._node.pod(request.match_info["namespace"], request.match_info["pod"])
        if pod is None:
            raise _Answer(404, "pod does not exist")
        return pod

    def _container(self, request: web.Request, pod: Pod, lacking: str) -> Container | ContainerElsewhere:
        """The running container that a path names; ``lacking`` is what to say where there is none."""
        name, uid = request.match_info["container"], request.match_info.get("uid", "")
        found = self._node.container(pod, name) if not uid or self._node.has_uid(pod, uid) else None
        if found is None:
            raise _Answer(500, lacking.format(container=name, full=_full(pod)))
        return found


def _full(pod: Pod) -> str:
    return f"{pod.metadata.name}_{pod.metadata.namespace}"


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")
