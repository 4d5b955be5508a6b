"""The plain HTTP health endpoint, a kubelet's on port 10248: for a supervisor on the same host, without credentials.

It is answered from the event loop that does all of the agent's work: where that is stuck, there is no answer.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

_SHUTDOWN = 1.0  # seconds that requests under way get when the server stops


class HealthzServer:
    """Serves /healthz: 200 `ok`, or 500 with a line for each reason."""

    def __init__(self, reasons: Callable[[], list[str]], address: str, port: int) -> None:
        """`reasons` tells what is wrong, at each request. Port 0 takes any free one (see `port`)."""
        self._reasons, self._address, self.port = reasons, address, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the address is in use or not ours."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._address, self.port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; safe to call twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        reasons = self._reasons()
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        if reasons:
            return web.Response(status=500, text="".join(f"{reason}\n" for reason in reasons), headers=headers)
        return web.Response(text="ok", headers=headers)
