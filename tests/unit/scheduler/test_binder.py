"""What becomes of a binding, whatever the API server answers or does not answer."""

import asyncio

import pytest

from nodewright.kube.errors import NotFound
from nodewright.scheduler import binder as module
from nodewright.scheduler.binder import Binder, Binding, BindResult
from nodewright.scheduler.queue import QueuedPod
from support.scheduler_builders import info, make_pod
from support.scripted_client import ScriptedClient, cut, refused

FREE = make_pod("a", uid="u")
OURS = make_pod("a", uid="u", node="n")
THEIRS = make_pod("a", uid="u", node="m")
OTHER = make_pod("a", uid="v")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(module, "Backoff", lambda *_: type("Now", (), {"next": lambda self: 0.0})())
    monkeypatch.setattr(module, "_FENCE_POLL", 0.0)


async def settle(client, **options):
    """Post one binding; what came of it and how often it was posted."""
    settled = []
    binder = Binder(client, lambda binding, result, message: settled.append((result, message)), in_flight=2, **options)
    task = asyncio.ensure_future(binder.run())
    try:
        binder.submit(Binding(QueuedPod(info(FREE), 0.0), "n", "nodewright", 0.0))
        async with asyncio.timeout(10):
            await binder.wait_idle()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    (result,) = settled
    return result, len(client.written)


@pytest.mark.parametrize(
    ("writes", "reads", "expected", "posted"),
    [
        ([], [], BindResult.BOUND, 1),
        ([refused(404)], [], BindResult.GONE, 1),
        ([refused(403)], [], BindResult.FAILED, 1),
        ([refused(429)], [], BindResult.FAILED, 1),
        # A lost answer: the second try tells.
        ([cut()], [], BindResult.BOUND, 2),
        ([cut(), refused(409)], [OURS], BindResult.BOUND, 2),
        ([cut(), refused(409)], [THEIRS], BindResult.CONFLICT, 2),
        ([cut(), refused(404)], [], BindResult.GONE, 2),
        ([cut(), refused(403)], [OURS], BindResult.BOUND, 2),
        ([cut(), refused(403)], [FREE], BindResult.FAILED, 2),
        # A Conflict is looked into.
        ([refused(409)], [OURS], BindResult.BOUND, 1),
        ([refused(409)], [THEIRS], BindResult.CONFLICT, 1),
        ([refused(409)], [FREE], BindResult.CONFLICT, 1),
        ([refused(409)], [OTHER], BindResult.CONFLICT, 1),
        ([refused(409)], [NotFound(404, "NotFound", "gone")], BindResult.GONE, 1),
        ([refused(409), refused(409)], [cut(), OURS], BindResult.BOUND, 2),
        # Errors that stay: after some tries the Pod is asked.
        ([refused(500)] * 3, [FREE], BindResult.FAILED, 3),
        ([refused(500)] * 3, [OURS], BindResult.BOUND, 3),
        ([cut()] * 6, [cut(), FREE], BindResult.FAILED, 6),
    ],
)
async def test_what_becomes_of_a_binding(writes, reads, expected, posted):
    (result, _), count = await settle(ScriptedClient(writes=writes, reads=reads))
    assert (result, count) == (expected, posted)


async def test_the_message_is_the_servers():
    (_, message), _ = await settle(ScriptedClient(writes=[refused(403, "not you")]))
    assert message == "not you"


async def test_a_conflict_is_told_once_the_watch_has_come_as_far():
    asked = []

    async def seen(version, timeout):
        asked.append(version)
        return len(asked) == 3

    theirs = make_pod("a", uid="u", node="m")
    theirs.metadata.resource_version = "77"
    (result, _), _ = await settle(ScriptedClient(writes=[refused(409)], reads=[theirs]), seen=seen)
    assert result is BindResult.CONFLICT
    assert asked == ["77"] * 3


async def test_nothing_is_posted_while_somebody_else_may_lead():
    allowed = iter([False, False, True])
    client = ScriptedClient()
    (result, _), posted = await settle(client, may_bind=lambda: next(allowed))
    assert (result, posted) == (BindResult.BOUND, 1)
    assert next(allowed, "used up") == "used up"
