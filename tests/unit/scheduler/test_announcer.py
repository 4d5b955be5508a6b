"""Events about placed Pods: told once each, however often it takes to post them."""

import asyncio

import pytest

from nodewright.kube.errors import AlreadyExists, Forbidden
from nodewright.scheduler import announcer as module
from nodewright.scheduler.announcer import ATTEMPTS, Announcer
from nodewright.scheduler.metrics import DROPPED_EVENTS
from support.scheduler_builders import info, make_pod
from support.scripted_client import ScriptedClient, cut, refused


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(module, "Backoff", lambda *_: type("Now", (), {"next": lambda self: 0.0})())


async def posted(client):
    """Announce one Pod: the names of the events that were sent, and how many were counted as lost."""

    async def at_once():
        return None

    lost = DROPPED_EVENTS.labels("refused")
    before = lost.value
    announcer = Announcer(client, "me", is_busy=lambda: False, wait_idle=at_once, workers=2)
    task = asyncio.ensure_future(announcer.run())
    announcer.announce(info(make_pod("a")), "n", "nodewright")
    async with asyncio.timeout(10):
        await announcer.flush()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return [body["metadata"]["name"] for _, _, body in client.written], lost.value - before


async def test_a_lost_answer_leads_to_the_same_event_again():
    exists = AlreadyExists(409, "AlreadyExists", "exists")
    names, lost = await posted(ScriptedClient(writes=[cut(), refused(500), exists]))
    assert (len(names), len(set(names)), lost) == (3, 1, 0)


async def test_a_namespace_that_goes_is_no_reason_to_try_again():
    ending = {"causes": [{"reason": "NamespaceTerminating", "message": "namespace x is being terminated"}]}
    names, lost = await posted(ScriptedClient(writes=[Forbidden(403, "Forbidden", "is being terminated", ending)]))
    assert (len(names), lost) == (1, 1)


async def test_an_api_server_that_forbids_everything_while_it_starts_is_asked_again():
    names, lost = await posted(ScriptedClient(writes=[Forbidden(403, "Forbidden", "no RBAC policy matched"), None]))
    assert (len(names), lost) == (2, 0)


async def test_in_the_end_it_is_given_up_and_counted():
    names, lost = await posted(ScriptedClient(writes=[cut()] * ATTEMPTS))
    assert (len(names), lost) == (ATTEMPTS, 1)
