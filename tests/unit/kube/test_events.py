"""Which events are sent (client-go's rules), and that the recorder never blocks and loses none without saying so."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from nodewright.kube.backoff import Backoff
from nodewright.kube.correlator import Correlator, SeriesCorrelator, Verdict
from nodewright.kube.events import EventRecorder, reference
from nodewright.kube.objects import Event, EventSource, EventV1, ObjectMeta, ObjectReference, Pod


def core(message="m", reason="R", name="p", count=1):
    ref = ObjectReference("Pod", "ns", name, f"uid-{name}", "v1")
    return Event(ObjectMeta(name=f"{name}.{message}", namespace="ns"), ref, reason, message, EventSource("c", "h"),
                 "t0", "t1", count, "Normal")  # fmt: skip


def test_equal_events_are_counted_under_their_first_name():
    correlator = Correlator()
    assert correlator.correlate(core(), 0)[0] is Verdict.CREATE
    again = core()
    again.metadata.name = "other"
    verdict, event = correlator.correlate(again, 1)
    assert (verdict, event.metadata.name, event.count) == (Verdict.PATCH, "p.m", 2)
    assert (again.metadata.name, again.count) == ("other", 1), "the caller's event is left alone"


def test_from_the_tenth_message_on_events_are_combined():
    correlator = Correlator()
    results = [correlator.correlate(core(f"m{i}"), i) for i in range(13)]
    assert [v for v, _ in results] == [Verdict.CREATE] * 10 + [Verdict.PATCH] * 3
    assert [e.message for _, e in results[8:11]] == [
        "m8", "(combined from similar events): m9", "(combined from similar events): m10",
    ]  # fmt: skip
    assert results[12][1].count == 4
    assert correlator.correlate(core("late"), 12 + 601)[1].message == "late"
    assert correlator.correlate(core("m", reason="Other"), 13)[1].message == "m"


def test_an_object_may_cause_25_events_and_then_one_in_five_minutes():
    correlator = Correlator()
    verdicts = [correlator.correlate(core(), 0)[0] for _ in range(30)]
    assert verdicts.count(Verdict.SKIP) == 5
    assert correlator.correlate(core(name="q"), 0)[0] is Verdict.CREATE
    assert correlator.correlate(core(), 299)[0] is Verdict.SKIP
    verdict, event = correlator.correlate(core(), 301)
    assert (verdict, event.count) == (Verdict.PATCH, 32)
    assert correlator.correlate(core(), 302)[0] is Verdict.SKIP


def test_the_memory_is_bounded():
    correlator = Correlator()
    for i in range(5000):
        correlator.correlate(core(name=f"p{i}"), 0)
    assert len(correlator._observed._entries) == 4096


def series(note="n", time="t"):
    return EventV1(
        ObjectMeta(name="e", namespace="ns"), time, ObjectReference("Pod", "ns", "p", "u"), "R", note, "Normal"
    )


def test_series():
    correlator = SeriesCorrelator()
    assert correlator.correlate(series(), 0)[0] is Verdict.CREATE
    verdict, event = correlator.correlate(series("another note", "t2"), 1)
    assert (verdict, event.series.count, event.series.last_observed_time) == (Verdict.PATCH, 2, "t2")
    assert correlator.correlate(series(time="t3"), 2)[0] is Verdict.SKIP
    assert correlator.finished(300) == []
    (unsent,) = correlator.finished(363)
    assert (unsent.series.count, unsent.series.last_observed_time) == (3, "t3")
    assert len(correlator) == 0
    assert correlator.correlate(series(), 400)[0] is Verdict.CREATE


@asynccontextmanager
async def running(recorder):
    task = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(20):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def pod(name="p"):
    return Pod(ObjectMeta(name=name, namespace="ns", uid=f"uid-{name}", resource_version="5"))


async def test_what_is_posted(stub, client):
    stub.answer({}, 201)
    recorder = EventRecorder(client, component="kubelet", instance="n1")
    recorder.event(pod(), "Warning", "BackOff", "x" * 2000, action="Starting")
    async with running(recorder):
        assert await recorder.flush()
    assert stub.requests[0].path == "/api/v1/namespaces/ns/events"
    sent = msgspec.json.decode(stub.bodies[0])
    assert sent["involvedObject"] == {
        "kind": "Pod", "namespace": "ns", "name": "p", "uid": "uid-p", "apiVersion": "v1", "resourceVersion": "5",
    }  # fmt: skip
    assert sent["source"] == {"component": "kubelet", "host": "n1"}
    assert (sent["reportingComponent"], sent["type"], sent["reason"], sent["count"]) == (
        "kubelet",
        "Warning",
        "BackOff",
        1,
    )
    assert len(sent["message"]) == 1024
    assert sent["metadata"]["name"].startswith("p.")


async def test_cluster_scoped_objects_report_to_default(stub, client):
    stub.answer({}, 201)
    recorder = EventRecorder(client, component="c", instance="i", series_api=True)
    recorder.event({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n" * 253}}, "Normal", "Ready", "up")
    async with running(recorder):
        assert await recorder.flush()
    assert stub.requests[0].path == "/apis/events.k8s.io/v1/namespaces/default/events"
    sent = msgspec.json.decode(stub.bodies[0])
    assert len(sent["metadata"]["name"]) == 253
    assert sent["action"] == "Ready"


async def test_names_are_unique(client):
    recorder = EventRecorder(client, component="c", instance="i", lanes=1)
    for _ in range(100):
        recorder.event(pod(), "Normal", "R", "m")
    assert len({event.metadata.name for event in recorder._lanes[0].queue}) == 100


async def test_a_full_queue_drops_and_says_so(client, caplog):
    recorder = EventRecorder(client, component="c", instance="i", queue_size=3)
    for i in range(5):
        recorder.event(pod(f"p{i}"), "Normal", "R", "m")
    assert sum(len(lane.queue) for lane in recorder._lanes) == 3
    assert caplog.text.count("event queue is full") == 2


async def test_refused_events_are_not_repeated_and_lost_connections_are(stub, client, make):
    recorder = EventRecorder(client, component="c", instance="i", lanes=1, retry=lambda: Backoff(0.001, 0.002))
    stub.answer(make.status(403, "Forbidden", "namespace is being terminated"), 403)
    stub.answer(make.status(500, "InternalError"), 500)
    stub.fail_connection()
    stub.answer({}, 201)
    recorder.event(pod("a"), "Normal", "R", "refused")
    recorder.event(pod("b"), "Normal", "R", "tried three times")
    async with running(recorder):
        assert await recorder.flush()
    messages = [msgspec.json.decode(body)["message"] for body in stub.bodies]
    assert messages == ["refused"] + ["tried three times"] * 3


async def test_news_of_one_event_that_wait_together_are_posted_once(stub, client):
    recorder = EventRecorder(client, component="c", instance="i")
    for i in range(20):
        stub.answer({}, 201)
        recorder.event(pod(), "Normal", "Created", f"pod {i}")
    recorder.event(pod(), "Warning", "Failed", "no")
    stub.answer({}, 201)
    async with running(recorder):
        assert await recorder.flush()
        sent = [(r.method, msgspec.json.decode(b)) for r, b in zip(stub.requests, stub.bodies, strict=True)]
        assert [method for method, _ in sent] == ["POST"] * 11
        assert [body["message"] for _, body in sent[8:]] == ["pod 8", "(combined from similar events): pod 19", "no"]
        assert [body["count"] for _, body in sent[8:]] == [1, 11, 1]
        for i in range(2):
            recorder.event(pod(), "Normal", "Created", f"late {i}")
        assert await recorder.flush()
    assert stub.requests[11].method == "PATCH"
    assert msgspec.json.decode(stub.bodies[11])["count"] == 13
    assert len(stub.requests) == 12


async def test_events_wait_a_moment_and_become_one_request_but_whoever_flushes_does_not_wait(stub, client):
    for _ in range(4):
        stub.answer({}, 201)
    recorder = EventRecorder(client, component="c", instance="i", lanes=1, pause=0.2)
    async with running(recorder):
        begun = asyncio.get_running_loop().time()
        for i in range(3):
            recorder.event(pod(), "Normal", "Created", "again")
            await asyncio.sleep(0.01 * i)
        while recorder._lanes[0].queue:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)
        assert asyncio.get_running_loop().time() - begun >= 0.2
        assert await recorder.flush()
        recorder._pause = 60.0
        recorder.event(pod("q"), "Normal", "Created", "soon")
        await asyncio.sleep(0.01)
        assert len(stub.bodies) == 1
        assert await recorder.flush()
        recorder.event(pod("r"), "Normal", "Created", "before")
        recorder.event(pod("r"), "Warning", "Failed", "trouble")
        while len(stub.bodies) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    counts = [(body["involvedObject"]["name"], body["count"]) for body in map(msgspec.json.decode, stub.bodies)]
    assert counts == [("p", 3), ("q", 1), ("r", 1), ("r", 1)]


async def test_a_dead_server_blocks_nobody(stub, client):
    recorder = EventRecorder(client, component="c", instance="i")
    async with running(recorder):
        recorder.event(pod(), "Normal", "R", "m")  # the stub has no answer prepared
        assert not await recorder.flush(0.05)


def test_references():
    ref = ObjectReference(name="x")
    assert reference(ref) is ref
    with pytest.raises(TypeError, match="kind"):
        reference(object())
