"""The handlers, over real TLS."""

from __future__ import annotations

import asyncio
import json
import ssl

import pytest

from nodewright.kube.objects import Container, ObjectMeta, Pod, PodSpec
from nodewright_agent.server import stats
from nodewright_agent.server.tls import ServingTLS
from nodewright_agent.server.view import ContainerUsage, NodeUsage, PodUsage, Usage


def pod(name):
    return Pod(ObjectMeta(name=name, namespace="ns", uid=f"uid-{name}"), PodSpec(containers=[Container("c")]))


async def test_pods_and_configz(admin, pods):
    pods.items = [pod("a"), pod("b")]
    status, text = await admin.get("/pods")
    listed = json.loads(text)
    assert (status, listed["kind"], [p["metadata"]["name"] for p in listed["items"]]) == (200, "PodList", ["a", "b"])
    listed = json.loads((await admin.get("/runningpods/"))[1])
    assert [p["metadata"]["name"] for p in listed["items"]] == ["a"]
    assert json.loads((await admin.get("/configz"))[1]) == {"kubeletconfig": {"maxPods": 110}}


@pytest.mark.parametrize(
    "path", ["/checkpoint/ns/p/c", "/debug/pprof", "/logs/", "/nothing", "/pods/x", "/metrics/nothing"]
)
async def test_what_is_not_there(admin, reviews, path):
    reviews.rules |= {("admin", "get", s) for s in ("checkpoint", "log")}
    assert (await admin.get(path))[0] == 404


async def test_wrong_methods(admin):
    assert (await admin.get("/pods", method="POST"))[0] == 405


async def test_a_failing_handler_gives_no_traceback(admin, pods, monkeypatch, caplog):
    monkeypatch.setattr(pods, "pods", lambda: 1 / 0)
    status, text = await admin.get("/pods")
    assert status == 500
    assert "Traceback" not in text
    assert "ZeroDivision" not in text
    assert "ZeroDivisionError" in caplog.text


async def test_metrics(admin):
    status, text = await admin.get("/metrics")
    assert status == 200
    assert "rest_client_requests_total" in text


USAGE = NodeUsage(
    1700000000.0,
    Usage(
        cpu_nanoseconds=5_000_000_000,
        memory_working_set_bytes=1000,
        memory_usage_bytes=2000,
        memory_rss_bytes=500,
        started_at=1600000000.0,
    ),
    [
        PodUsage(
            "ns",
            "p",
            "u",
            Usage(cpu_nanoseconds=1_500_000_000, memory_working_set_bytes=100),
            [ContainerUsage('c"x', Usage(memory_working_set_bytes=50, started_at=1.5))],
        ),
    ],
)


def test_summary_has_only_what_is_known():
    built = stats.summary("node-1", USAGE)
    assert built["node"]["cpu"] == {"time": "2023-11-14T22:13:20Z", "usageCoreNanoSeconds": 5_000_000_000}
    assert built["pods"][0]["podRef"] == {"name": "p", "namespace": "ns", "uid": "u"}
    assert built["pods"][0]["memory"] == {"time": "2023-11-14T22:13:20Z", "workingSetBytes": 100}
    assert "cpu" not in built["pods"][0]["containers"][0]


def test_resource_metrics():
    text = stats.resource_metrics(USAGE)
    assert "node_cpu_usage_seconds_total 5.000000000 1700000000000\n" in text
    assert 'pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 1.500000000 1700000000000\n' in text
    assert 'container_memory_working_set_bytes{container="c\\"x",namespace="ns",pod="p"} 50 1700000000000\n' in text
    assert 'container_start_time_seconds{container="c\\"x",namespace="ns",pod="p"} 1.500\n' in text
    assert "container_cpu_usage_seconds_total" not in text, "it is not known"
    assert text.endswith("resource_scrape_error 0\n")
    assert stats.resource_metrics(None).endswith("resource_scrape_error 1\n")


async def test_usage_over_http(admin, server):
    class Source:
        async def usage(self):
            return USAGE

        cgroups = usage

    assert (await admin.get("/stats/summary"))[0] == 503
    server._stats = Source()
    assert json.loads((await admin.get("/stats/summary"))[1])["node"]["nodeName"] == "node-1"
    assert "pod_memory_working_set_bytes" in (await admin.get("/metrics/resource"))[1]
    assert 'container_memory_working_set_bytes{container="c' in (await admin.get("/metrics/cadvisor"))[1]
    brief = json.loads((await admin.get("/stats/summary?only_cpu_and_memory=true"))[1])
    assert set(brief["pods"][0]) == {"podRef", "cpu", "memory", "containers"}


async def _serial(port, ca):
    context = ssl.create_default_context(cafile=str(ca))
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    serial = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return serial


async def test_a_renewed_certificate_is_served_without_restart(server, authority, tmp_path):
    first = await _serial(server.port, authority.path)
    assert await _serial(server.port, authority.path) == first
    key = (tmp_path / "server.key").read_bytes()
    (tmp_path / "server.key").write_bytes(b"half written")
    assert await _serial(server.port, authority.path) == first, "a pair that does not fit is not taken"
    (tmp_path / "server.key").write_bytes(key)
    authority.issue("server", server=True)
    assert await _serial(server.port, authority.path) != first


async def test_old_tls_is_refused(server, authority):
    context = ssl.create_default_context(cafile=str(authority.path))
    for setting in ("minimum_version", "maximum_version"):
        with pytest.warns(DeprecationWarning, match="deprecated"):
            setattr(context, setting, ssl.TLSVersion.TLSv1_1)
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.open_connection("localhost", server.port, ssl=context)


async def test_a_port_in_use_is_an_error(server, authority, pods):
    cert, key = authority.issue("server", server=True)
    other = type(server)(
        pods, node_name="n", tls=ServingTLS(cert, key, None), authenticator=None, authorizer=None,
        address="127.0.0.1", port=server.port,
    )  # fmt: skip
    with pytest.raises(OSError, match="in use"):
        await other.start()
    await other.stop()
