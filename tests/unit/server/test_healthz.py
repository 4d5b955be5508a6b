"""The plain health endpoint, and what the agent says on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from nodewright_agent.config import AgentConfig, ConfigError
from nodewright_agent.health import Health, served
from nodewright_agent.server.healthz import HealthzServer


@asynccontextmanager
async def serving(reasons) -> AsyncIterator[HealthzServer]:
    server = HealthzServer(reasons, "127.0.0.1", 0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        await server.stop()


async def get(port: int, path: str = "/healthz", method: str = "GET") -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


async def ended() -> None:
    return None


async def endless() -> None:
    await asyncio.Event().wait()


async def test_the_answer_is_of_this_moment():
    wrong: list[str] = []
    async with serving(lambda: wrong) as server:
        assert await get(server.port) == (200, "ok")
        wrong += ["one: has ended", "two"]
        assert await get(server.port) == (500, "one: has ended\ntwo\n")
        wrong.clear()
        assert await get(server.port) == (200, "ok")


async def test_nothing_else_is_served():
    async with serving(list) as server:
        assert (await get(server.port, "/pods"))[0] == 404
        assert (await get(server.port, method="POST"))[0] == 405
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(server.port)


async def test_what_is_said_in_an_agents_life():
    health = Health()
    assert health.reasons() == ["starting: what an earlier agent left is not yet taken up"]
    pods = asyncio.create_task(endless(), name="pods")
    node = asyncio.create_task(endless(), name="node")
    listening = asyncio.Event()
    server = asyncio.create_task(listening.wait(), name="server")
    failures: dict[str, str] = {}
    health.follow([pods, node], server, failures)  # type: ignore[arg-type]
    assert health.reasons() == ["server: the kubelet API does not listen yet"]
    listening.set()
    await server
    assert health.reasons() == []
    failures["u"] = "pod ns/p: its worker failed: KeyError: 'x'"
    assert health.reasons() == ["pod ns/p: its worker failed: KeyError: 'x'"]
    failures.clear()
    node.cancel()
    await asyncio.wait([node])
    assert health.reasons() == ["node: has ended"]
    pods.cancel()
    await asyncio.gather(pods, return_exceptions=True)


async def test_it_is_answered_before_anything_else_is_there():
    port = free_port()
    async with served(Health(), AgentConfig(healthz_port=port)):
        status, text = await get(port)
        assert status == 500
        assert text.startswith("starting")
    with socket.create_server(("127.0.0.1", port)):
        pass  # free again


async def test_it_can_be_switched_off(monkeypatch):
    async def start(self):
        raise AssertionError("it listens")

    monkeypatch.setattr(HealthzServer, "start", start)
    async with served(Health(), AgentConfig(healthz_port=0)):
        pass


async def test_a_taken_port_is_an_error_that_names_the_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = rf"healthz_port: cannot listen at 127\.0\.0\.1 port {port}: Address already in use \(a kubelet has"
        with pytest.raises(ConfigError, match=wanted):
            async with served(Health(), AgentConfig(healthz_port=port)):
                pytest.fail("it started")


async def test_a_loop_that_is_stuck_does_not_answer():
    async with serving(list) as server:
        asyncio.get_running_loop().call_soon(stuck_while_asked, server.port)
        await asyncio.sleep(0)
        assert await get(server.port) == (200, "ok"), "and answers again afterwards"


def stuck_while_asked(port: int) -> None:
    """Ask from within the loop, which can do nothing else meanwhile."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as asking:
        asking.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            asking.recv(1)
