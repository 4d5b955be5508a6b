"""The servers behind healthCheckNodePort."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from aiohttp import ClientConnectorError, ClientSession

from nodewright_agent.proxy.health import STALE_SECONDS, Health
from nodewright_agent.proxy.healthcheck import HealthCheckServers
from nodewright_agent.proxy.services import HealthCheck

HERE = ("127.0.0.1",)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
async def bench() -> Any:
    now = [1000.0]
    health = Health(lambda: now[0])
    health.updated()
    failures: list[tuple[str, str]] = []
    servers = HealthCheckServers(health, lambda service, message: failures.append((service, message)))
    async with ClientSession() as session:

        async def get(port: int) -> tuple[int, str, Any]:
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                weight = answer.headers["X-Load-Balancing-Endpoint-Weight"]
                return answer.status, weight, json.loads(await answer.text())

        yield servers, get, failures, health, now
    await servers.close()


async def test_answers_follow_the_endpoints(bench: Any) -> None:
    servers, get, _, health, now = bench
    port = free_port()
    await servers.sync({"ns/web": HealthCheck(port, 2)}, HERE)
    body = {"service": {"namespace": "ns", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": True}
    assert await get(port) == (200, "2", body)
    await servers.sync({"ns/web": HealthCheck(port, 0)}, HERE)
    assert (await get(port))[:2] == (503, "0")
    await servers.sync({"ns/web": HealthCheck(port, 1)}, HERE)
    health.queued()
    now[0] += STALE_SECONDS
    status, _, body = await get(port)
    assert (status, body["serviceProxyHealthy"]) == (503, False), "a proxy that lags behind takes no traffic"


async def test_ports_are_closed_and_moved(bench: Any) -> None:
    servers, get, _, _, _ = bench
    first, second = free_port(), free_port()
    await servers.sync({"ns/web": HealthCheck(first, 1)}, HERE)
    await servers.sync({"ns/web": HealthCheck(second, 1)}, HERE)
    assert (await get(second))[0] == 200
    with pytest.raises(ClientConnectorError):
        await get(first)
    await servers.sync({}, HERE)
    with pytest.raises(ClientConnectorError):
        await get(second)


async def test_ports_follow_the_addresses_of_the_node(bench: Any) -> None:
    servers, get, _, _, _ = bench
    port = free_port()
    await servers.sync({"ns/web": HealthCheck(port, 1)}, ("127.0.0.2",))
    with pytest.raises(ClientConnectorError):
        await get(port)
    await servers.sync({"ns/web": HealthCheck(port, 1)}, HERE)
    assert (await get(port))[0] == 200


async def test_a_port_in_use_is_reported_and_tried_again(bench: Any) -> None:
    servers, get, failures, _, _ = bench
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await servers.sync({"ns/web": HealthCheck(port, 1)}, HERE)
        assert failures[0][0] == "ns/web"
        assert f"healthCheckNodePort {port} cannot be opened" in failures[0][1]
    await servers.sync({"ns/web": HealthCheck(port, 1)}, HERE)
    assert (await get(port))[0] == 200
