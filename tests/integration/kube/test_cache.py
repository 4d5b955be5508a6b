"""The watch cache, events and leases against a real kube-apiserver."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from nodewright.kube.cache import WatchCache
from nodewright.kube.errors import Conflict
from nodewright.kube.events import EventRecorder
from nodewright.kube.leases import LeaseHolder
from nodewright.kube.objects import ConfigMap, Event, EventV1, ObjectMeta
from nodewright.kube.resources import CONFIGMAPS, EVENTS, EVENTS_V1

pytestmark = pytest.mark.needs_cluster


@asynccontextmanager
async def running(*things):
    tasks = [asyncio.create_task(thing.run()) for thing in things]
    try:
        async with asyncio.timeout(40):
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_cache_follows(client, namespace):
    await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="before"), {"k": "0"}), namespace)
    cache = WatchCache(
        client, CONFIGMAPS, type=ConfigMap, namespace=namespace, indexes={"k": lambda c: [c.data.get("k")]}
    )
    changes = []
    gone = asyncio.Event()
    cache.add_handler(lambda old, new: gone.set() if new is None else None)
    cache.add_handler(lambda old, new: changes.append((old and old.data["k"], new and new.data["k"])))
    async with running(cache):
        await cache.wait_synced()
        assert cache.get(f"{namespace}/before").data == {"k": "0"}
        made = await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="a"), {"k": "1"}), namespace, type=ConfigMap)
        assert await cache.wait_for(made.metadata.resource_version, 10)
        assert [c.metadata.name for c in cache.by_index("k", "1")] == ["a"]
        changed = await client.patch(CONFIGMAPS, "a", {"data": {"k": "2"}}, namespace, type=ConfigMap)
        assert await cache.wait_for(changed.metadata.resource_version, 10)
        assert list(cache.by_index("k", "1")) == []
        await client.delete(CONFIGMAPS, "a", namespace)
        await gone.wait()
    assert changes == [(None, "0"), (None, "1"), ("1", "2"), ("2", None)]


async def test_events_are_counted_and_combined(client, namespace):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace, "uid": "u"}}
    recorder = EventRecorder(client, component="test", instance="here")
    async with running(recorder):
        for _ in range(3):
            recorder.event(pod, "Warning", "BackOff", "again and again")
        for i in range(12):
            recorder.event(pod, "Normal", "Pulled", f"image {i}")
        assert await recorder.flush(20)
    found = (await client.list(EVENTS, namespace, type=Event)).items
    repeated = [e for e in found if e.reason == "BackOff"]
    assert [(e.count, e.message, e.source.component, e.type) for e in repeated] == [
        (3, "again and again", "test", "Warning")
    ]
    assert repeated[0].involved_object.uid == "u"
    pulled = sorted(e.message for e in found if e.reason == "Pulled")
    assert len(pulled) == 10
    combined = [e for e in found if e.message.startswith("(combined from similar events): ")]
    assert [(e.count, e.message.endswith("image 11")) for e in combined] == [(3, True)]


async def test_events_as_series(client, namespace):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace, "uid": "u"}}
    recorder = EventRecorder(client, component="test-scheduler", instance="here", series_api=True)
    async with running(recorder):
        for i in range(3):
            recorder.event(pod, "Warning", "FailedScheduling", f"0/{i} nodes are available", action="Scheduling")
        assert await recorder.flush(20)
    (event,) = (await client.list(EVENTS_V1, namespace, type=EventV1)).items
    assert (event.reason, event.note, event.reporting_controller) == (
        "FailedScheduling",
        "0/0 nodes are available",
        "test-scheduler",
    )
    assert event.series.count == 2


async def test_an_event_that_expired_is_made_anew(client, namespace):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace, "uid": "u"}}
    recorder = EventRecorder(client, component="test", instance="here")
    async with running(recorder):
        recorder.event(pod, "Normal", "Started", "up")
        assert await recorder.flush(20)
        (event,) = (await client.list(EVENTS, namespace, type=Event)).items
        await client.delete(EVENTS, event.metadata.name, namespace)
        recorder.event(pod, "Normal", "Started", "up")
        assert await recorder.flush(20)
    (event,) = (await client.list(EVENTS, namespace, type=Event)).items
    assert event.count == 2


async def test_leases(client, namespace):
    mine = LeaseHolder(client, namespace, "node-a", "node-a")
    first = await mine.renew()
    second = await mine.renew()
    assert second.metadata.uid == first.metadata.uid
    assert second.spec.renew_time > first.spec.renew_time
    assert second.spec.lease_transitions == 0

    other = LeaseHolder(client, namespace, "node-a", "someone-else")
    taken = await other.replace(await other.read())
    assert (taken.spec.holder_identity, taken.spec.lease_transitions) == ("someone-else", 1)
    with pytest.raises(Conflict):
        await mine.replace(second)
    third = await mine.renew()  # its own by name: it takes it back
    assert (third.spec.holder_identity, third.spec.lease_transitions) == ("node-a", 2)
    released = await mine.replace(third, release=True)
    assert not released.spec.holder_identity
