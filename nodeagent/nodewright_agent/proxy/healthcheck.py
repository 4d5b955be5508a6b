"""Answers load balancers on a Service's healthCheckNodePort: does this node have endpoints of it?

As upstream's pkg/proxy/healthcheck/service_health.go: 200 while a local endpoint is ready and the proxy keeps up, else
503, with the number of endpoints as a weight.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping

from aiohttp import web

from nodewright_agent.proxy.health import Health
from nodewright_agent.proxy.services import HealthCheck

log = logging.getLogger(__name__)


class HealthCheckServers:
    """One HTTP server for each Service that asks for it."""

    def __init__(self, health: Health, failed: Callable[[str, str], None]) -> None:
        """`failed(service, message)` is told of a port that cannot be opened; it is tried again at the next change."""
        self._health, self._failed = health, failed
        self._wanted: dict[str, HealthCheck] = {}
        self._running: dict[str, tuple[tuple[int, tuple[str, ...]], web.AppRunner]] = {}

    async def sync(self, wanted: Mapping[str, HealthCheck], addresses: tuple[str, ...]) -> None:
        """Open and close ports on the node's addresses (none: on all), and take over the counts."""
        self._wanted = dict(wanted)
        for service, (place, runner) in list(self._running.items()):
            check = wanted.get(service)
            if check is None or (check.port, addresses) != place:
                del self._running[service]
                await runner.cleanup()
        for service, check in wanted.items():
            if service not in self._running:
                await self._start(service, check.port, addresses)

    async def _start(self, service: str, port: int, addresses: tuple[str, ...]) -> None:
        async def answer(request: web.Request) -> web.Response:
            return self._answer(service)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            for address in addresses or (None,):
                await web.TCPSite(runner, address, port).start()
        except OSError as error:
            await runner.cleanup()
            message = f"node {', '.join(addresses)}: healthCheckNodePort {port} cannot be opened: {error.strerror}"
            log.error("no health check server", extra={"service": service, "port": port, "error": str(error)})
            self._failed(service, message)
            return
        self._running[service] = ((port, addresses), runner)

    def _answer(self, service: str) -> web.Response:
        check = self._wanted.get(service)
        count = check.endpoints if check is not None else 0
        healthy = self._health.healthy
        namespace, _, name = service.partition("/")
        body = {
            "service": {"namespace": namespace, "name": name},
            "localEndpoints": count,
            "serviceProxyHealthy": healthy,
        }
        return web.Response(
            status=200 if count and healthy else 503,
            text=json.dumps(body),
            content_type="application/json",
            headers={"X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": str(count)},
        )

    async def close(self) -> None:
        """Close all ports."""
        await self.sync({}, ())
