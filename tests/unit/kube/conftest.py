"""An API server of a few lines on the loopback interface: it answers with what a test has prepared, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from nodewright.kube.client import Client
from nodewright.kube.config import Config

Step = Callable[[web.Request], Awaitable[web.StreamResponse]]


def obj(name: str, version: int, namespace: str = "ns", uid: str = "", **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    if labels:
        meta["labels"] = labels
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


def status(code: int, reason: str, message: str = "", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": message or reason, "details": details}  # fmt: skip


class Stub:
    """Answers with the prepared steps; when they are used up, a request waits until the server goes down."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque()
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self.stopping = asyncio.Event()
        self.exhausted = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        if not self.steps:
            self.exhausted.set()
            await self.stopping.wait()
            return web.Response(status=503)
        return await self.steps.popleft()(request)

    def query(self, index: int) -> dict[str, str]:
        return dict(self.requests[index].query)

    def answer(self, body: Any, code: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        real = {name.replace("_", "-"): value for name, value in headers.items()}

        async def step(_: web.Request) -> web.Response:
            return web.Response(body=data, status=code, headers=real, content_type="application/json")

        self.steps.append(step)

    def list(self, *items: dict[str, Any], version: int = 1, continue_: str = "") -> None:
        self.answer({"metadata": {"resourceVersion": str(version), "continue": continue_}, "items": list(items)})

    def watch(self, *lines: Any, then: str = "hang", chunk: int = 0) -> None:
        """Send lines; `then` end (the server's timeout), abort (a broken connection) or hang (silence)."""
        data = b"".join((line if isinstance(line, bytes) else msgspec.json.encode(line)) + b"\n" for line in lines)

        async def step(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            for start in range(0, len(data), chunk or max(1, len(data))):
                await response.write(data[start : start + (chunk or len(data))])
                if chunk:
                    await asyncio.sleep(0)
            if then == "abort":
                assert request.transport is not None
                request.transport.abort()
            elif then == "hang":
                self.exhausted.set()
                await self.stopping.wait()
            return response

        self.steps.append(step)

    def fail_connection(self) -> None:
        async def step(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        self.steps.append(step)


def event(type_: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": type_, "object": item}


def bookmark(version: int) -> dict[str, Any]:
    return {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(version)}}}


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    server = Stub()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    yield server
    server.stopping.set()
    await runner.cleanup()


@pytest.fixture
async def client(stub: Stub) -> AsyncIterator[Client]:
    async with Client(Config(stub.url)) as c:
        yield c


@pytest.fixture
def make() -> Any:
    """Give the builders of objects, events and Status bodies."""

    class Make:
        obj = staticmethod(obj)
        event = staticmethod(event)
        bookmark = staticmethod(bookmark)
        status = staticmethod(status)

    return Make


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make the transport's pauses immediate, and record them."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float, *args: Any) -> None:
        if seconds > 0:
            pauses.append(seconds)
        await real(0)

    monkeypatch.setattr("nodewright.kube.transport.asyncio.sleep", sleep)
    return pauses


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
