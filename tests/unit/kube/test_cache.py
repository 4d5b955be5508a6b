"""The watch cache against a scripted server: resume, relist, bookmarks, silence, bad objects."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.objects import Pod
from nodewright.kube.resources import PODS


class Seen:
    """Collects what handlers are told, as text."""

    def __init__(self):
        self.changes = []

    def __call__(self, old, new):
        self.changes.append((_show(old), _show(new)))


def _show(pod):
    return pod and f"{pod.metadata.name}@{pod.metadata.resource_version}"


@asynccontextmanager
async def running(cache):
    task = asyncio.create_task(cache.run())
    try:
        async with asyncio.timeout(20):
            yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def cache(client, seen):
    cache = WatchCache(
        client,
        PODS,
        type=Pod,
        indexes={"color": lambda pod: [c] if (c := pod.metadata.labels.get("color")) else []},
        backoff=Backoff(0.001, 0.002),
        idle_timeout=10,
    )
    cache.add_handler(seen)
    return cache


async def test_list_then_watch(stub, cache, seen, make):
    stub.list(make.obj("a", 1, color="red"), make.obj("b", 2, color="blue"), version=5)
    stub.watch(
        make.event("ADDED", make.obj("c", 6, color="red")),
        make.event("MODIFIED", make.obj("a", 7, color="blue")),
        make.event("DELETED", make.obj("b", 8, color="blue")),
        make.bookmark(50),
    )
    assert not cache.has_synced
    async with running(cache):
        await cache.wait_synced()
        assert await cache.wait_for("50", 10)
    assert seen.changes == [(None, "a@1"), (None, "b@2"), (None, "c@6"), ("a@1", "a@7"), ("b@8", None)]
    assert stub.query(1)["resourceVersion"] == "5"
    assert sorted(cache.keys()) == ["ns/a", "ns/c"]
    assert [p.metadata.name for p in cache.by_index("color", "blue")] == ["a"]
    assert [p.metadata.name for p in cache.by_index("color", "red")] == ["c"]
    assert list(cache.by_index("color", "green")) == []
    assert (len(cache), cache.resource_version, cache.get("ns/b")) == (2, 50, None)


async def test_a_watch_that_ends_is_resumed_from_the_newest_version(stub, cache, seen, make):
    stub.list(version=5)
    stub.watch(make.event("ADDED", make.obj("a", 6)), make.bookmark(40), then="end")
    stub.watch(make.event("MODIFIED", make.obj("a", 41)), then="abort")
    stub.watch(make.event("MODIFIED", make.obj("a", 42)))
    async with running(cache):
        assert await cache.wait_for(42, 10)
    assert [stub.query(i).get("resourceVersion") for i in range(4)] == [None, "5", "40", "41"]
    assert seen.changes == [(None, "a@6"), ("a@6", "a@41"), ("a@41", "a@42")]


@pytest.mark.parametrize("how", ["status", "event"])
async def test_gone_relists_and_tells_the_difference(stub, cache, seen, make, how):
    stub.list(make.obj("stays", 1), make.obj("changes", 2), make.obj("goes", 3), make.obj("reborn", 4), version=5)
    if how == "status":
        stub.answer(make.status(410, "Expired"), 410)
    else:
        stub.watch(make.event("ERROR", make.status(410, "Expired")))
    stub.list(
        make.obj("stays", 1), make.obj("changes", 22), make.obj("comes", 23), make.obj("reborn", 24, uid="other"),
        version=30,
    )  # fmt: skip
    stub.watch(make.bookmark(31))
    async with running(cache):
        await cache.wait_synced()
        del seen.changes[:]
        assert await cache.wait_for(31, 10)
    assert seen.changes == [
        ("goes@3", None),
        ("changes@2", "changes@22"),
        (None, "comes@23"),
        ("reborn@4", None),
        (None, "reborn@24"),
    ]
    assert stub.query(3)["resourceVersion"] == "30"


async def test_handlers_see_the_new_content_during_a_relist(stub, cache, make):
    stub.list(make.obj("a", 1), version=5)
    stub.answer(make.status(410, "Expired"), 410)
    stub.list(make.obj("b", 9), version=10)
    contents = []
    cache.add_handler(lambda old, new: contents.append(sorted(cache.keys())))
    async with running(cache):
        assert await cache.wait_for(10, 10)
    assert contents == [["ns/a"], ["ns/b"], ["ns/b"]], "the swap is atomic: no handler sees half of it"


async def test_a_failed_list_is_tried_again_and_said_once(stub, cache, make, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(4):
        stub.answer(make.status(403, "Forbidden", "no list for you"), 403)
    stub.list(make.obj("a", 1), version=5)
    async with running(cache):
        await cache.wait_synced()
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "no list for you" in warnings[0]
    assert any("in touch" in r.getMessage() for r in caplog.records)


async def test_a_silent_watch_is_replaced_without_a_warning(stub, client, make, caplog):
    cache = WatchCache(client, PODS, type=Pod, backoff=Backoff(0.001, 0.002), idle_timeout=0.1)
    stub.list(version=5)
    stub.watch(make.bookmark(6))  # and then nothing, as behind a load balancer that forgot the connection
    stub.watch(make.event("ADDED", make.obj("a", 7)))
    async with running(cache):
        assert await cache.wait_for(7, 10)
    assert stub.query(2)["resourceVersion"] == "6"
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_watch_that_goes_back_in_time_leads_to_a_list(stub, cache, seen, make):
    stub.list(make.obj("a", 10), version=10)
    stub.watch(make.event("MODIFIED", make.obj("a", 4)))  # etcd was restored from a backup
    stub.list(make.obj("a", 4), version=5)
    stub.watch(make.event("MODIFIED", make.obj("a", 6)))
    six = asyncio.Event()
    cache.add_handler(lambda old, new: six.set() if new.metadata.resource_version == "6" else None)
    async with running(cache):
        await cache.wait_synced()
        await stub.exhausted.wait()
        await six.wait()
    assert seen.changes == [(None, "a@10"), ("a@10", "a@4"), ("a@4", "a@6")]


async def test_repeated_events_are_no_changes(stub, cache, seen, make):
    stub.list(make.obj("a", 5), version=5)
    stub.watch(
        make.event("ADDED", make.obj("a", 5)),
        make.event("DELETED", make.obj("never-seen", 6)),
        make.event("ADDED", make.obj("b", 7)),
        make.event("ADDED", make.obj("b", 7)),
        make.bookmark(8),
    )
    async with running(cache):
        assert await cache.wait_for(8, 10)
    assert seen.changes == [(None, "a@5"), (None, "b@7")]


async def test_a_new_uid_under_an_old_name_is_a_deletion_and_an_addition(stub, cache, seen, make):
    stub.list(make.obj("a", 5, uid="one"), version=5)
    stub.watch(make.event("ADDED", make.obj("a", 7, uid="two")), make.event("DELETED", make.obj("a", 8, uid="two")))
    async with running(cache):
        assert await cache.wait_for(8, 10)
    assert seen.changes[1:] == [("a@5", None), (None, "a@7"), ("a@8", None)]


async def test_undecodable_objects_harm_nobody(stub, cache, seen, make, caplog):
    broken = make.obj("bad", 8)
    broken["spec"] = {"containers": "none"}
    stub.list(make.obj("bad", 1), make.obj("good", 2), version=5)
    stub.watch(make.event("MODIFIED", broken), make.event("MODIFIED", make.obj("good", 9)), then="end")
    stub.answer(make.status(410, "Expired"), 410)
    stub.list(broken, make.obj("good", 9), version=12)
    stub.watch(make.bookmark(13))
    async with running(cache):
        assert await cache.wait_for(13, 10)
    assert seen.changes == [(None, "bad@1"), (None, "good@2"), ("good@2", "good@9")]
    assert cache.get("ns/bad") is not None, "an object that can't be read any more has not been deleted"
    assert "ns/bad is skipped" in caplog.text


async def test_garbage_on_the_watch_leads_to_a_list(stub, cache, seen, make):
    stub.list(version=5)
    stub.watch(b'{"type":"ADD')
    stub.list(make.obj("a", 6), version=6)
    async with running(cache):
        assert await cache.wait_for(6, 10)
    assert seen.changes == [(None, "a@6")]


async def test_a_failing_handler_or_index_stops_nothing(stub, client, seen, make, caplog):
    def index(pod):
        raise LookupError("index")

    def handler(old, new):
        raise LookupError("handler")

    cache = WatchCache(client, PODS, type=Pod, indexes={"broken": index})
    cache.add_handler(handler)
    cache.add_handler(seen)
    stub.list(make.obj("a", 1), version=5)
    async with running(cache):
        await cache.wait_synced()
    assert seen.changes == [(None, "a@1")]
    assert "a handler failed on ns/a" in caplog.text
    assert "index broken failed on ns/a" in caplog.text


async def test_wait_for_gives_up_in_time(stub, cache):
    stub.list(version=5)
    async with running(cache):
        await cache.wait_synced()
        assert await cache.wait_for(5, 0)
        assert not await cache.wait_for(6, 0.01)
        assert cache._waiters == []


async def test_dicts_and_cluster_scoped_names(stub, client, make):
    item = make.obj("n", 1)
    del item["metadata"]["namespace"]
    stub.list(item, version=5)
    cache = WatchCache(client, PODS)
    async with running(cache):
        await cache.wait_synced()
    assert cache.get("n")["metadata"]["name"] == "n"


async def test_short_watches_are_slowed_down(stub, client, make):
    pauses = []

    class Recording(Backoff):
        def next(self):
            pauses.append(super().next())
            return 0.0

    cache = WatchCache(client, PODS, type=Pod, backoff=Recording(0.8, 30, rand=lambda: 0.0))
    stub.list(version=5)
    for _ in range(8):
        stub.watch(then="end")
    async with running(cache):
        await stub.exhausted.wait()
    assert pauses == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


async def test_renewing_opens_a_new_watch_from_where_the_old_one_stands(stub, cache, seen, make):
    stub.list(make.obj("a", 1), version=5)
    stub.watch(make.event("ADDED", make.obj("b", 6)))
    stub.watch(make.event("ADDED", make.obj("c", 7)))
    async with running(cache):
        assert await cache.wait_for("6", 10)
        cache.renew()
        cache.renew()
        assert await cache.wait_for("7", 10)
    assert stub.query(2)["resourceVersion"] == "6"
    assert [new for _, new in seen.changes] == ["a@1", "b@6", "c@7"]


async def test_renewing_does_not_wait_for_the_pause_after_a_failure(stub, client, make, caplog):
    cache = WatchCache(client, PODS, type=Pod, backoff=Backoff(3600, 3600), idle_timeout=10)
    stub.list(make.obj("a", 1), version=5)
    stub.answer({"kind": "Status"}, code=500)
    stub.watch(make.event("ADDED", make.obj("b", 6)))
    async with running(cache):
        await cache.wait_synced()
        while "trying again" not in caplog.text:  # noqa: ASYNC110 - a log line has no event
            await asyncio.sleep(0.01)
        assert not await cache.wait_for("6", 0.1)
        cache.renew()
        assert await cache.wait_for("6", 10)


async def test_catching_up_sees_what_a_dead_watch_has_missed(stub, cache, make):
    stub.list(make.obj("a", 1), version=5)
    stub.watch()  # silence
    async with running(cache):
        await stub.exhausted.wait()
        stub.list(make.obj("a", 1), version=9)
        stub.watch(make.event("ADDED", make.obj("b", 8)), make.bookmark(9))
        await cache.catch_up(10)
        assert cache.get("ns/b") is not None
    assert stub.query(2) == {"limit": "1"}


async def test_catching_up_is_at_once_done_where_nothing_was_missed(stub, cache, make):
    stub.list(make.obj("a", 1), version=5)
    stub.watch()
    async with running(cache):
        await stub.exhausted.wait()
        stub.list(version=5)
        await cache.catch_up(3600)
    assert len(stub.requests) == 3


async def test_catching_up_in_a_quiet_cluster_ends_in_time(stub, cache, make):
    stub.list(make.obj("a", 1), version=5)
    stub.watch()
    async with running(cache):
        await stub.exhausted.wait()
        stub.list(version=50)
        stub.watch()
        await cache.catch_up(0.05)
    assert cache.resource_version == 5
