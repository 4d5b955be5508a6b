"""When the proxy calls itself healthy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession

from nodewright.kube.objects import Node
from nodewright_agent.proxy.health import STALE_SECONDS, Endpoints, Health
from nodewright_agent.proxy.metrics import ProxyMetrics, TrafficCollector


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def node(**spec: Any) -> Node:
    metadata = {"name": "n", **spec.pop("metadata", {})}
    return msgspec.convert({"metadata": metadata, "spec": spec}, Node)


def test_a_change_that_waits_too_long_is_unhealthy() -> None:
    clock = Clock()
    health = Health(clock)
    health.updated()
    clock.now += 10 * STALE_SECONDS
    assert health.healthy, "nothing to do is healthy"
    health.queued()
    clock.now += STALE_SECONDS - 1
    health.queued()
    assert health.healthy
    clock.now += 1
    assert not health.healthy, "the first change that waits counts, not the last"
    health.updated()
    assert health.healthy


def test_never_synced_becomes_unhealthy() -> None:
    clock = Clock()
    health = Health(clock)
    assert health.healthy
    clock.now += STALE_SECONDS
    assert not health.healthy


def test_report_has_upstreams_fields() -> None:
    clock = Clock()
    health = Health(clock)
    assert health.report()["lastUpdated"] == "0001-01-01T00:00:00Z"
    health.updated()
    clock.now += 5
    report = health.report()
    assert report["lastUpdated"] == report["currentTime"] == "1970-01-12T13:46:45.000000Z"
    assert (report["nodeEligible"], report["healthy"]) == (True, True)


def test_a_node_that_goes_is_not_eligible() -> None:
    health = Health(Clock())
    health.node(node())
    assert health.eligible
    health.node(node(taints=[{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]))
    assert not health.eligible
    health.node(node(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    assert not health.eligible
    health.node(None)
    assert health.eligible


@pytest.fixture
async def served() -> Any:
    clock = Clock()
    health, metrics = Health(clock), ProxyMetrics()
    health.updated()
    metrics.registry.register(TrafficCollector(lambda: [("ns/web:http", "10.96.0.1:80/TCP", 7, 100)]))
    endpoints = Endpoints(health, metrics, lambda: "nftables")
    await endpoints.serve("127.0.0.1", 0, metrics=False)
    await endpoints.serve("127.0.0.1", 0, metrics=True)
    async with ClientSession() as session:

        async def get(path: str, which: int = 0) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{endpoints.ports[which]}{path}") as answer:
                return answer.status, await answer.text()

        yield health, clock, get
    await endpoints.close()


async def test_endpoints(served: Any) -> None:
    health, clock, get = served
    status, text = await get("/healthz")
    assert status == 200
    assert "lastUpdated" in text
    assert await get("/proxyMode", 1) == (200, "nftables")
    assert (await get("/metrics"))[0] == 404, "metrics are not for everybody"
    health.node(node(taints=[{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]))
    assert (await get("/healthz"))[0] == 503
    assert (await get("/livez"))[0] == 200
    health.queued()
    clock.now += STALE_SECONDS
    assert (await get("/livez"))[0] == 503
    text = (await get("/metrics", 1))[1]
    assert 'kubeproxy_proxy_healthz_total{code="503"} 1.0' in text
    assert 'nodewright_proxy_service_connections_total{address="10.96.0.1:80/TCP",service="ns/web:http"} 7.0' in text
