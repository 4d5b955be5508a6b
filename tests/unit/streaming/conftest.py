"""kubelet's stream routes on a real server, with a pod that is played."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from nodewright_agent.server.streaming.kubelet import StreamRoutes
from nodewright_agent.server.streaming.upgrade import Limits
from support.stream_server import Node, Server


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def limits() -> Limits:
    return Limits(creation=0.3, finish=5.0, sessions=3)


@pytest.fixture
async def server(node: Node, limits: Limits) -> AsyncIterator[Server]:
    app = web.Application()
    routes = StreamRoutes(node, limits)
    routes.add_to(app.router)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made = Server(runner.addresses[0][1], routes)
    yield made
    for one in made.made:
        one.writer.close()
    await routes.close()
    await runner.cleanup()
