import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from nodewright.framework.health import HealthServer


@pytest.fixture
async def server():
    registry = CollectorRegistry()
    Gauge("answer", "the answer", registry=registry).set(42)
    server = HealthServer(registry=registry)
    await server.start()
    yield server
    await server.stop()
    await server.stop()


async def fetch(server, path):
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as response:
        return response.status, await response.text()


async def test_no_checks_are_healthy(server):
    for path in ("/livez", "/healthz", "/readyz"):
        assert await fetch(server, path) == (200, "ok")


async def test_a_failing_check_is_named_with_its_reason(server):
    server.add_ready("caches", lambda: "not synced: pods")
    server.add_ready("ping", lambda: None)
    status, text = await fetch(server, "/readyz")
    assert status == 503
    assert text == "[-]caches failed: not synced: pods\n[+]ping ok\nreadyz check failed\n"
    assert (await fetch(server, "/livez"))[0] == 200


async def test_verbose_single_and_unknown_checks(server):
    async def check():
        return None

    server.add_live("loop", check)
    assert await fetch(server, "/livez?verbose") == (200, "[+]loop ok\nlivez check passed\n")
    assert await fetch(server, "/livez/loop") == (200, "ok")
    assert (await fetch(server, "/livez/nothing"))[0] == 404


async def test_a_check_that_raises_counts_as_failed(server):
    def broken():
        raise RuntimeError("boom")

    server.add_live("broken", broken)
    status, text = await fetch(server, "/healthz")
    assert status == 503
    assert "[-]broken failed: RuntimeError: boom" in text


async def test_metrics(server):
    status, text = await fetch(server, "/metrics")
    assert status == 200
    assert "answer 42.0" in text


async def test_an_address_in_use_is_an_oserror(server):
    other = HealthServer(port=server.port)
    with pytest.raises(OSError, match="address already in use"):
        await other.start()


async def test_further_pages():
    async def page():
        return "things 3\n"

    server = HealthServer(registry=CollectorRegistry())
    server.add_page("/metrics/things", page)
    await server.start()
    try:
        assert await fetch(server, "/metrics/things") == (200, "things 3\n")
        assert (await fetch(server, "/metrics"))[0] == 200
    finally:
        await server.stop()
