"""The probe and metrics server: /livez, /readyz, /healthz, /metrics, in the form of Kubernetes' own components."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

# A check gives None when all is well, else what is wrong.
Check = Callable[[], "str | Awaitable[str | None] | None"]
# Gives metrics as text.
Page = Callable[[], Awaitable[str]]


class HealthServer:
    """Serves probes. Checks of `/livez` (also `/healthz`) and `/readyz` can be added at any time."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, registry: CollectorRegistry = REGISTRY) -> None:
        """Port 0 takes any free one; `port` tells which after `start`."""
        self._host = host
        self.port = port
        self._registry = registry
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}
        self._pages: dict[str, Page] = {}
        self._runner: web.AppRunner | None = None

    def add_live(self, name: str, check: Check) -> None:
        """A failing live check means: restart this process."""
        self._live[name] = check

    def add_ready(self, name: str, check: Check) -> None:
        """A failing ready check means: not of use now; restarting would not help."""
        self._ready[name] = check

    def add_page(self, path: str, page: Page) -> None:
        """Serve further metrics, in Prometheus' text format, under another path. Call it before `start`."""
        self._pages[path] = page

    async def start(self) -> None:
        """Listen. Raises OSError when the address is in use or not ours."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        for path, page in self._pages.items():
            app.router.add_get(path, self._page_handler(page))
        for path, checks in (("/livez", self._live), ("/healthz", self._live), ("/readyz", self._ready)):
            app.router.add_get(path, self._handler(path, checks))
            app.router.add_get(path + "/{name}", self._handler(path, checks))
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        try:
            await site.start()
        except OSError:
            await self.stop()
            raise
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; safe to call twice."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @staticmethod
    def _page_handler(page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_request: web.Request) -> web.Response:
            return web.Response(body=(await page()).encode(), headers={"Content-Type": CONTENT_TYPE_LATEST})

        return handle

    @staticmethod
    def _handler(path: str, checks: dict[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            only = request.match_info.get("name")
            if only is not None and only not in checks:
                return web.Response(status=404, text=f"no check {only!r} under {path}\n")
            lines: list[str] = []
            healthy = True
            for name, check in list(checks.items()):
                if only is not None and name != only:
                    continue
                trouble = await _run(check)
                healthy &= trouble is None
                lines.append(f"[+]{name} ok" if trouble is None else f"[-]{name} failed: {trouble}")
            if healthy and "verbose" not in request.query:
                return web.Response(text="ok")
            lines.append(f"{path.lstrip('/')} check {'passed' if healthy else 'failed'}")
            return web.Response(status=200 if healthy else 503, text="\n".join(lines) + "\n")

        return handle


async def _run(check: Check) -> str | None:
    try:
        result = check()
        return await result if isawaitable(result) else result
    except Exception as error:  # a broken check must show as a failed one, not as an empty answer
        return f"{type(error).__name__}: {error}"
