"""Whether the proxy keeps up, and the endpoints that say so: /healthz, /livez, /metrics, /proxyMode."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import generate_latest

from nodewright.kube.objects import Node
from nodewright_agent.proxy.metrics import ProxyMetrics

STALE_SECONDS = 60.0
"""A change that waits longer makes the proxy unhealthy (upstream: twice the sync period of 30 s)."""
_SCALE_DOWN_TAINT = "ToBeDeletedByClusterAutoscaler"


class Health:
    """Pure state: when changes were queued and carried out. Times are seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin as never synced: unhealthy once that has taken too long."""
        self._clock = clock
        self._queued: float | None = clock()
        self._updated: float | None = None
        self.eligible = True

    def queued(self) -> None:
        """Note that something is to be done."""
        if self._queued is None:
            self._queued = self._clock()

    def updated(self) -> None:
        """Note that everything queued is done."""
        self._queued = None
        self._updated = self._clock()

    def node(self, node: Node | None) -> None:
        """Take over whether load balancers shall still send new connections to the node (KEP-3836)."""
        taints = node.spec.taints if node is not None else []
        going = node is not None and node.metadata.deletion_timestamp is not None
        self.eligible = not going and all(taint.key != _SCALE_DOWN_TAINT for taint in taints)

    @property
    def healthy(self) -> bool:
        """Whether no change waits for too long."""
        return self._queued is None or self._clock() - self._queued < STALE_SECONDS

    def report(self) -> dict[str, object]:
        """Give what the endpoints answer, with upstream's field names."""
        now = self._clock()
        # upstream: a proxy that is in time shows the present, a late one the last time it was
        shown = now if self._queued is None and self._updated is not None else self._updated
        return {
            "lastUpdated": _text(shown),
            "currentTime": _text(now),
            "nodeEligible": self.eligible,
            "healthy": self.healthy,
        }


def _text(moment: float | None) -> str:
    if moment is None:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Endpoints:
    """HTTP servers for health (all addresses) and metrics (loopback by default)."""

    def __init__(self, health: Health, metrics: ProxyMetrics, mode: Callable[[], str]) -> None:
        """`mode` gives the backend in use."""
        self._health, self._metrics, self._mode = health, metrics, mode
        self._runners: list[web.AppRunner] = []
        self.ports: list[int] = []
        """The ports in use, in the order of `serve` calls."""

    async def serve(self, address: str, port: int, *, metrics: bool) -> None:
        """Serve /healthz and /livez, or with `metrics` /metrics and /proxyMode. Raises OSError where it cannot bind."""
        app = web.Application()
        if metrics:
            app.router.add_get("/metrics", self._serve_metrics)
            app.router.add_get("/proxyMode", self._serve_mode)
        app.router.add_get("/healthz", self._serve_healthz)
        app.router.add_get("/livez", self._serve_livez)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, address, port)
        await site.start()
        self.ports.append(runner.addresses[0][1])

    async def close(self) -> None:
        """Stop all servers."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _serve_healthz(self, request: web.Request) -> web.Response:
        good = self._health.healthy and self._health.eligible
        self._metrics.healthz.labels("200" if good else "503").inc()
        return self._answer(good)

    async def _serve_livez(self, request: web.Request) -> web.Response:
        self._metrics.livez.labels("200" if self._health.healthy else "503").inc()
        return self._answer(self._health.healthy)

    def _answer(self, good: bool) -> web.Response:
        text = json.dumps(self._health.report())
        headers = {"X-Content-Type-Options": "nosniff"}
        return web.Response(status=200 if good else 503, text=text, content_type="application/json", headers=headers)

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _serve_mode(self, request: web.Request) -> web.Response:
        return web.Response(text=self._mode())
