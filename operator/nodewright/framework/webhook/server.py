"""The HTTPS server that the API server calls: AdmissionReview in, AdmissionReview out, one path per kind."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from nodewright.framework.webhook import metrics, review
from nodewright.framework.webhook.review import Answer, MalformedReview, Reviewer

log = logging.getLogger(__name__)

MAX_BODY = 7 * 1024 * 1024  # bytes; controller-runtime's limit: two objects of etcd's limit, escaped, and some air
MAX_REVIEWS = 32  # at a time; more wait, so that a crowd cannot fill the memory
READ_TIMEOUT = 5.0  # seconds that a body may take to arrive
DEFAULT_TIMEOUT = 10.0  # seconds for a whole call where the API server does not say (it does: ?timeout=10s)
MARGIN = 0.5  # seconds before the caller's deadline at which we answer for ourselves
KEEP_ALIVE = 120.0  # longer than the 90 s after which Go clients drop idle connections, so that they close first


class WebhookServer:
    """Serves reviewers by path. The TLS context may have no certificate yet: handshakes fail until it gets one."""

    def __init__(self, host: str, port: int, reviewers: Mapping[str, Reviewer], context: ssl.SSLContext) -> None:
        """Port 0 takes any free one; `port` tells which after `start`."""
        self.port = port
        self._host = host
        self._reviewers = dict(reviewers)
        self._context = context
        self._slots = asyncio.Semaphore(MAX_REVIEWS)
        self._runner: web.AppRunner | None = None

    @property
    def is_serving(self) -> bool:
        """Whether the port is open."""
        return self._runner is not None

    async def start(self) -> None:
        """Listen. Raises OSError when the address is in use or not ours."""
        app = web.Application(client_max_size=MAX_BODY)
        for path, reviewer in self._reviewers.items():
            app.router.add_post(path, self._handler(path, reviewer))
        runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=5.0, keepalive_timeout=KEEP_ALIVE
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self.port, ssl_context=self._context).start()
        except OSError:
            await runner.cleanup()
            raise
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening, let running reviews end; safe to call twice."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def _handler(self, path: str, reviewer: Reviewer) -> Callable[[web.Request], Awaitable[web.Response]]:
        in_flight, latency = metrics.IN_FLIGHT.labels(path), metrics.LATENCY.labels(path)

        async def handle(request: web.Request) -> web.Response:
            started = time.monotonic()
            code = 500
            try:
                with in_flight.track_inprogress():
                    response = await self._serve(request, path, reviewer)
                code = response.status
                return response
            except web.HTTPException as error:  # aiohttp's own: body too large, ...
                code = error.status
                raise
            finally:
                latency.observe(time.monotonic() - started)
                metrics.REQUESTS.labels(path, str(code)).inc()

        return handle

    async def _serve(self, request: web.Request, path: str, reviewer: Reviewer) -> web.Response:
        """Everything but the accounting. A status other than 200 makes the API server apply the failurePolicy."""
        if request.content_type != "application/json":
            return web.Response(status=415, text=f"expected application/json, got {request.content_type}\n")
        deadline = asyncio.get_running_loop().time() + _time_allowed(request.query.get("timeout", ""))
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                async with asyncio.timeout(READ_TIMEOUT):
                    body = await request.read()
                call = review.decode(body)
                answer = await reviewer(call)
        except MalformedReview as error:
            return web.Response(status=400, text=f"{error}\n")
        except TimeoutError:
            log.warning("no answer in time", extra={"webhook": path})
            return web.Response(status=504, text="the review took too long\n")
        except (ConnectionError, web.HTTPException):
            raise
        except Exception:
            log.exception("a reviewer failed", extra={"webhook": path})
            return web.Response(status=500, text="the reviewer failed; the operator's log tells why\n")
        _account(path, answer)
        return web.Response(body=review.encode(call, answer), content_type="application/json")


def _account(path: str, answer: Answer) -> None:
    result = "denied" if answer.causes else "warned" if answer.warnings else "allowed"
    metrics.REVIEWS.labels(path, result).inc()


def _time_allowed(text: str) -> float:
    """Seconds from the `timeout` parameter that the API server gives, such as `10s`; else our own limit."""
    number = text.removesuffix("s")
    if not (text.endswith("s") and number.isascii() and number.isdigit() and len(number) < 4):
        return DEFAULT_TIMEOUT - MARGIN
    return max(float(number) - MARGIN, MARGIN)
