"""The server on loopback, with a certificate of our making."""

import asyncio
import io
import logging
import ssl
import warnings
from datetime import UTC, datetime

import aiohttp
import pytest
from prometheus_client import REGISTRY

from nodewright.framework.webhook import server as server_module
from nodewright.framework.webhook import tls
from nodewright.framework.webhook.certificates import Lifetimes, plan
from nodewright.framework.webhook.review import Answer, Cause
from nodewright.framework.webhook.server import WebhookServer

from .test_review import body

NAMES = ("hook.ns.svc", "127.0.0.1")


def material():
    return plan(None, None, NAMES, Lifetimes(), datetime.now(UTC))


async def review(request):
    match request.name:
        case "slow":
            await asyncio.sleep(30)
        case "broken":
            raise RuntimeError("a bug")
        case "bad":
            return Answer((Cause("spec", "Invalid value"),))
    return Answer()


class Running:
    def __init__(self):
        self.context = tls.server_context()
        self.server = WebhookServer("127.0.0.1", 0, {"/validate-x": review}, self.context)
        self.material = material()

    async def post(self, data, path="/validate-x", *, trust=None, **more):
        context = ssl.create_default_context(cadata=(trust or self.material).bundle.decode())
        headers = {"Content-Type": more.pop("content_type", "application/json")}
        url = f"https://127.0.0.1:{self.server.port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(more.pop("method", "POST"), url, data=data, headers=headers, ssl=context) as response,
        ):
            result = response.status, await response.text()
        await asyncio.sleep(0)
        return result


@pytest.fixture
async def running():
    running = Running()
    tls.use(running.context, running.material.chain)
    await running.server.start()
    yield running
    await running.server.stop()


def count(code):
    labels = {"webhook": "/validate-x", "code": str(code)}
    return REGISTRY.get_sample_value("controller_runtime_webhook_requests_total", labels) or 0


async def test_reviews_are_answered(running):
    before = count(200)
    status, text = await running.post(body())
    assert status == 200
    assert '"allowed":true' in text
    assert '"allowed":false' in (await running.post(body(name="bad")))[1]
    assert count(200) == before + 2
    labels = {"webhook": "/validate-x", "result": "denied"}
    assert REGISTRY.get_sample_value("nodewright_admission_reviews_total", labels)
    assert REGISTRY.get_sample_value("controller_runtime_webhook_latency_seconds_count", {"webhook": "/validate-x"})


@pytest.mark.parametrize(
    ("data", "more", "status", "text"),
    [
        (b"nonsense", {}, 400, "not an AdmissionReview"),
        (b"{}", {"content_type": "text/plain"}, 415, "expected application/json"),
        (io.BytesIO(b"x" * (server_module.MAX_BODY + 1)), {}, 413, ""),
        (b"{}", {"path": "/elsewhere"}, 404, ""),
        (b"", {"method": "GET"}, 405, ""),
        (body(name="slow"), {"path": "/validate-x?timeout=1s"}, 504, "took too long"),
    ],
)
async def test_bad_requests(running, data, more, status, text):
    got, said = await running.post(data, **more)
    assert got == status
    assert text in said


async def test_a_bug_is_a_failed_call_and_logged(running, caplog):
    before = count(500)
    with caplog.at_level(logging.ERROR):
        status, text = await running.post(body(name="broken"))
    assert status == 500
    assert "a bug" not in text  # what a bug says is for the log
    assert "a bug" in caplog.text
    assert count(500) == before + 1


async def test_a_body_that_does_not_come_is_given_up(running, monkeypatch):
    monkeypatch.setattr(server_module, "READ_TIMEOUT", 0.1)

    async def never():
        yield b"{"
        await asyncio.sleep(5)

    assert (await running.post(never()))[0] == 504


async def test_certificates_are_exchanged_without_a_pause(running):
    other = material()
    tls.use(running.context, other.chain)
    assert (await running.post(body(), trust=other))[0] == 200
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await running.post(body())


async def test_without_a_certificate_handshakes_fail_and_nothing_else():
    running = Running()
    await running.server.start()
    try:
        with pytest.raises(aiohttp.ClientConnectorError):
            await running.post(body())
        tls.use(running.context, running.material.chain)
        assert (await running.post(body()))[0] == 200
    finally:
        await running.server.stop()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(running, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    opening = asyncio.open_connection("127.0.0.1", running.server.port, ssl=context)
    if version is ssl.TLSVersion.TLSv1_2:
        _, writer = await opening
        assert writer.get_extra_info("cipher")[1] == "TLSv1.2"
        writer.close()
        await writer.wait_closed()
    else:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await opening


async def test_an_address_in_use(running):
    other = WebhookServer("127.0.0.1", running.server.port, {}, running.context)
    with pytest.raises(OSError, match="in use"):
        await other.start()
    assert not other.is_serving


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 9.5), ("1s", 0.5), ("0s", 0.5), ("", 9.5), ("1m", 9.5), ("9999s", 9.5), ("-3s", 9.5)]
)
def test_the_callers_deadline(text, seconds):
    assert server_module._time_allowed(text) == seconds
