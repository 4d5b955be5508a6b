"""Short-lived certificates: the authority changes again and again while the API server keeps calling."""

import asyncio
import base64
from datetime import timedelta

import pytest

from nodewright.framework.webhook.certificates import Lifetimes, parse
from nodewright.framework.webhook.options import WebhookOptions
from nodewright.framework.webhook.review import Answer
from nodewright.framework.webhook.service import WebhookService
from nodewright.kube.resources import DAEMONSETS, SECRETS

from .conftest import free_port, until
from .test_webhook import daemonset

pytestmark = pytest.mark.needs_cluster

SHORT = Lifetimes(
    authority=timedelta(seconds=12),
    serving=timedelta(seconds=6),
    overlap=timedelta(seconds=3),
    backdate=timedelta(seconds=0),
)


@pytest.fixture
async def service(world):
    """A webhook without the rest of an operator, which notes what it was asked."""
    asked = []

    async def allow(request):
        asked.append(request.name)
        return Answer()

    options = WebhookOptions(
        host="127.0.0.1",
        port=free_port(),
        service=(world.namespace, "webhook"),
        configuration=world.name,
        secret=world.secret,
        extra_names=("127.0.0.1",),
    )
    paths = [f"/validate-nodewright-dev-v1alpha1-{kind}" for kind in ("daemonset", "schedulerprofile")]
    service = WebhookService(world.client, options, dict.fromkeys(paths, allow), life=SHORT, settle=0.5)
    service.asked = asked
    await world.configure(options.port)
    await service.start()
    task = asyncio.create_task(service.run())
    await until(lambda: service.trouble() is None)
    yield service
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await service.stop()


async def test_no_call_fails_while_certificates_come_and_go(world, service):
    seen_serving, seen_authorities, overlapped = set(), set(), False
    loop = asyncio.get_running_loop()
    end = loop.time() + 20
    number = 0
    while loop.time() < end:
        stored = parse((await world.stored())["data"])
        seen_serving.add(stored.cert.serial_number)
        seen_authorities.add(stored.authorities[0].serial_number)
        overlapped |= len(stored.authorities) > 1
        number += 1
        # failurePolicy Fail: a call that could not be made, or was not trusted, raises here
        await world.client.create(DAEMONSETS, daemonset(world.namespace, f"d-{number}"), world.namespace)
        assert service.asked[-1] == f"d-{number}"
        await asyncio.sleep(0.15)
    assert len(seen_serving) >= 4
    assert len(seen_authorities) >= 3
    assert overlapped
    assert len(parse((await world.stored())["data"]).authorities) <= 2


async def test_a_broken_secret_is_made_anew(world, service):
    before = await world.stored()
    broken = {"data": {"tls.key": base64.b64encode(b"nonsense").decode()}}
    await world.client.patch(SECRETS, world.secret, broken, world.namespace)

    async def repaired():
        data = (await world.stored())["data"]
        return data["tls.key"] not in (broken["data"]["tls.key"], before["data"]["tls.key"]) and parse(data)

    await until(repaired, 5)
    await until(lambda: service.trouble() is None, 5)
    await world.client.create(DAEMONSETS, daemonset(world.namespace, "after"), world.namespace)
