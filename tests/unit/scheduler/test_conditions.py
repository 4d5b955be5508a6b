"""Writing conditions: each for one version of a Pod, and again until it is written or outdated."""

import asyncio

import msgspec
import pytest

from nodewright.scheduler import conditions as module
from nodewright.scheduler.conditions import ConditionWriter, Refusal
from support.scheduler_builders import info, make_pod
from support.scripted_client import ScriptedClient, cut, refused


def version(number, *, node="", conditions=(), uid="u"):
    pod = make_pod("a", uid=uid, node=node)
    pod.metadata.resource_version = str(number)
    status = {"conditions": list(conditions)}
    return msgspec.convert({**msgspec.to_builtins(pod), "status": status}, type(pod))


def refusal(message="why", number=5):
    return Refusal(info(version(number)), "Unschedulable", message)


SAID = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "why"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(module, "Backoff", lambda *_: type("Now", (), {"next": lambda self: 0.0})())


async def written(client, *refusals, meanwhile=None):
    writer = ConditionWriter(client, workers=1)
    task = asyncio.ensure_future(writer.run())
    for each in refusals:
        writer.write(each)
    for _ in range(30):
        await asyncio.sleep(0)
        if meanwhile is not None and client.written:
            meanwhile(writer)
            meanwhile = None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return [
        (body["metadata"].get("resourceVersion"), body["status"]["conditions"][0]["message"])
        for _, _, body in client.written
    ]


async def test_a_write_is_for_the_version_that_was_refused():
    assert await written(ScriptedClient(), refusal()) == [("5", "why")]


@pytest.mark.parametrize("failure", [cut(), refused(500), refused(503), refused(429)])
async def test_a_passing_failure_is_tried_again(failure):
    assert await written(ScriptedClient(writes=[failure, failure]), refusal()) == [("5", "why")] * 3


async def test_a_lasting_refusal_is_not():
    assert await written(ScriptedClient(writes=[refused(403)]), refusal()) == [("5", "why")]


async def test_a_pod_that_changed_is_read_and_written_again():
    client = ScriptedClient(writes=[refused(409)], reads=[version(7)])
    assert await written(client, refusal()) == [("5", "why"), ("7", "why")]


@pytest.mark.parametrize(
    "newer", [version(7, node="n"), version(7, uid="other"), version(7, conditions=[SAID]), refused(404)]
)
async def test_but_not_when_it_has_a_node_or_is_another_or_was_told_already(newer):
    client = ScriptedClient(writes=[refused(409)], reads=[newer])
    assert await written(client, refusal()) == [("5", "why")]


async def test_trying_again_ends_when_there_is_newer_news():
    client = ScriptedClient(writes=[cut()])
    found = await written(client, refusal(), meanwhile=lambda writer: writer.write(refusal("other")))
    assert found == [("5", "why"), ("5", "other")]


async def test_trying_again_ends_when_the_pod_has_a_node():
    client = ScriptedClient(writes=[cut()] * 3)
    assert await written(client, refusal(), meanwhile=lambda writer: writer.forget("u")) == [("5", "why")]
