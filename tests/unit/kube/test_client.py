"""The client against a scripted server: verbs, errors, retries, pagination, watches."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from nodewright.kube import errors
from nodewright.kube.client import Client, PatchType
from nodewright.kube.config import Config
from nodewright.kube.objects import Lease, LeaseSpec, ObjectMeta, Pod
from nodewright.kube.resources import LEASES, NODES, PODS


async def test_get_decodes_into_a_struct_or_a_dict(stub, client, make):
    stub.answer(make.obj("a", 3))
    stub.answer(make.obj("a", 3))
    pod = await client.get(PODS, "a", "ns", type=Pod)
    assert (pod.key, pod.metadata.resource_version) == ("ns/a", "3")
    assert (await client.get(PODS, "a", "ns"))["kind"] == "Pod"
    assert stub.requests[0].path == "/api/v1/namespaces/ns/pods/a"


async def test_an_answer_that_is_not_the_type_names_the_field(stub, client):
    stub.answer({"metadata": {"name": 5}})
    with pytest.raises(errors.BadResponse, match=r"\$\.metadata\.name"):
        await client.get(PODS, "a", "ns", type=Pod)


@pytest.mark.parametrize(
    ("code", "reason", "cls"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (500, "InternalError", errors.ServerUnavailable),
        (504, "Timeout", errors.ServerUnavailable),
    ],
)
async def test_statuses_become_exceptions(stub, client, make, code, reason, cls):
    stub.answer(make.status(code, reason, "because", name="a"), code)
    with pytest.raises(cls) as caught:
        await client.get(PODS, "a", "ns")
    error = caught.value
    assert type(error) is cls
    assert (error.status, error.reason, error.message, error.details["name"]) == (code, reason, "because", "a")


async def test_invalid_tells_the_fields(stub, client, make):
    stub.answer(make.status(422, "Invalid", causes=[{"field": "spec.replicas", "message": "must be >= 0"}]), 422)
    with pytest.raises(errors.Invalid) as caught:
        await client.create(PODS, {"metadata": {"name": "a"}}, "ns")
    assert caught.value.causes == [("spec.replicas", "must be >= 0")]


@pytest.mark.parametrize("body", [b"<html>502</html>", b"", b"\xff\xfe", b"[]", b"[" * 100_000, b"null"])
async def test_errors_without_a_status_object(stub, client, body):
    stub.answer(body, 502)
    with pytest.raises(errors.ServerUnavailable) as caught:
        await client.create(PODS, {"metadata": {"name": "a"}}, "ns")
    assert caught.value.status == 502
    assert caught.value.message
    assert len(caught.value.message) <= 1000


async def test_a_redirect_is_not_followed(stub, client):
    stub.answer(b"", 302, Location="http://127.0.0.1:1/steal")
    with pytest.raises(errors.ApiError) as caught:
        await client.get(PODS, "a", "ns")
    assert caught.value.status == 302
    assert len(stub.requests) == 1


async def test_429_waits_as_the_server_asks(stub, client, make, no_waiting):
    stub.answer(make.status(429, "TooManyRequests"), 429, Retry_After="7")
    stub.answer(make.status(503, "ServiceUnavailable"), 503, Retry_After="2")
    stub.answer(make.obj("a", 1))
    await client.create(PODS, make.obj("a", 0), "ns")
    assert len(stub.requests) == 3
    assert 7 <= no_waiting[0] <= 10.5
    assert 2 <= no_waiting[1] <= 3


async def test_429_for_ever_ends_in_the_error(stub, client, make, no_waiting):
    for _ in range(11):
        stub.answer(make.status(429, "TooManyRequests"), 429, Retry_After="999999999")
    with pytest.raises(errors.TooManyRequests) as caught:
        await client.get(PODS, "a", "ns")
    assert caught.value.retry_after == 999999999
    assert len(no_waiting) == 10
    assert max(no_waiting) <= 90


@pytest.mark.parametrize("value", ["-5", "Fri, 31 Dec 1999 23:59:59 GMT", "", "1.5", "²"])
async def test_odd_retry_after_counts_as_absent(stub, client, make, no_waiting, value):
    stub.answer(make.status(503, "ServiceUnavailable"), 503, Retry_After=value)
    with pytest.raises(errors.ServerUnavailable):
        await client.get(PODS, "a", "ns")
    assert no_waiting == []


async def test_a_503_without_retry_after_is_not_retried(stub, client, make):
    stub.answer(make.status(503, "ServiceUnavailable"), 503)
    with pytest.raises(errors.ServerUnavailable):
        await client.create(PODS, make.obj("a", 0), "ns")
    assert len(stub.requests) == 1


async def test_reads_survive_broken_connections_and_writes_report_them(stub, client, make, no_waiting):
    stub.fail_connection()
    stub.answer(make.obj("a", 1))
    assert (await client.get(PODS, "a", "ns"))["metadata"]["name"] == "a"
    stub.fail_connection()
    before = len(stub.requests)
    with pytest.raises(errors.ServerUnavailable) as caught:
        await client.create(PODS, make.obj("a", 0), "ns")
    assert caught.value.status == 0
    assert len(stub.requests) == before + 1, "a write that may have been carried out must not be sent again"


async def test_nobody_listening(no_waiting, unused_port):
    async with Client(Config(f"http://127.0.0.1:{unused_port}")) as c:
        with pytest.raises(errors.ServerUnavailable, match=rf":{unused_port}/.*: cannot connect: Connection refused$"):
            await c.get(NODES, "n")
    assert len(no_waiting) == 3


async def test_a_request_times_out(stub, client):
    with pytest.raises(errors.ServerUnavailable) as caught:
        await client.request("GET", "/slow", timeout=0.05)
    assert caught.value.reason == "Timeout"


async def test_list_follows_the_pages(stub, client, make):
    stub.list(make.obj("a", 1), make.obj("b", 2), version=10, continue_="t1")
    stub.list(make.obj("c", 3), version=10, continue_="t2")
    stub.list(make.obj("d", 4), version=10)
    found = await client.list(PODS, type=Pod, limit=2, label_selector="a=b", resource_version="0")
    assert [p.metadata.name for p in found.items] == ["a", "b", "c", "d"]
    assert found.resource_version == "10"
    assert stub.query(0) == {"limit": "2", "labelSelector": "a=b", "resourceVersion": "0"}
    assert stub.query(1) == {"limit": "2", "labelSelector": "a=b", "continue": "t1"}


async def test_an_expired_continue_token_starts_over(stub, client, make):
    stub.list(make.obj("a", 1), version=10, continue_="t1")
    stub.answer(make.status(410, "Expired"), 410)
    stub.list(make.obj("a", 1), make.obj("b", 20), version=20)
    found = await client.list(PODS, type=Pod, limit=1)
    assert [p.metadata.name for p in found.items] == ["a", "b"]
    assert found.resource_version == "20"
    assert stub.query(2) == {}


async def test_a_list_that_is_gone_at_once_is_an_error(stub, client, make):
    stub.answer(make.status(410, "Expired"), 410)
    with pytest.raises(errors.Gone):
        await client.list(PODS, resource_version="5")


async def test_null_items_are_an_empty_list(stub, client):
    stub.answer({"metadata": {"resourceVersion": "5"}, "items": None})
    assert (await client.list(PODS)).items == []


async def test_bad_items_are_reported_and_left_out(stub, client, make):
    stub.list(make.obj("a", 1), {"metadata": {"name": 7}}, make.obj("b", 2), version=3)
    bad = []
    found = await client.list(PODS, type=Pod, on_bad=lambda body, error: bad.append((body, str(error))))
    assert [p.metadata.name for p in found.items] == ["a", "b"]
    assert len(bad) == 1
    assert b'"name":7' in bad[0][0]


async def test_create_fills_in_kind_and_namespace(stub, client):
    stub.answer({"metadata": {"name": "l", "namespace": "ns"}})
    lease = Lease(ObjectMeta(name="l", namespace="ns"), LeaseSpec("me", 40))
    await client.create(LEASES, lease, type=Lease)
    assert stub.requests[0].path == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    sent = msgspec.json.decode(stub.bodies[0])
    assert (sent["apiVersion"], sent["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert sent["spec"] == {"holderIdentity": "me", "leaseDurationSeconds": 40}


async def test_a_subresource_keeps_its_own_kind(stub, client):
    stub.answer({})
    await client.create(PODS, {"kind": "Binding", "target": {"name": "n"}}, "ns", name="p", subresource="binding")
    assert stub.requests[0].path == "/api/v1/namespaces/ns/pods/p/binding"
    assert msgspec.json.decode(stub.bodies[0]) == {"kind": "Binding", "target": {"name": "n"}}


async def test_patch_kinds_have_their_media_types(stub, client):
    for kind in PatchType:
        stub.answer({})
        await client.patch(PODS, "p", {"a": 1}, "ns", kind=kind, subresource="status")
        assert stub.requests[-1].headers["Content-Type"] == kind.value
    assert stub.requests[-1].path.endswith("/pods/p/status")


async def test_apply_names_the_manager(stub, client):
    stub.answer({})
    await client.apply(PODS, {"metadata": {"name": "p", "namespace": "ns"}}, field_manager="me")
    assert stub.query(0) == {"fieldManager": "me", "force": "true"}
    assert stub.requests[0].method == "PATCH"
    assert msgspec.json.decode(stub.bodies[0])["kind"] == "Pod"


async def test_delete_sends_its_preconditions(stub, client):
    stub.answer({})
    await client.delete(PODS, "p", "ns", grace_period_seconds=0, uid="u", propagation_policy="Background")
    sent = msgspec.json.decode(stub.bodies[0])
    assert sent["gracePeriodSeconds"] == 0
    assert sent["preconditions"] == {"uid": "u"}
    assert sent["propagationPolicy"] == "Background"


@pytest.mark.parametrize("name", ["../../secrets", "a/b", "a?x=1", "a%2fb", "ü"])
async def test_names_never_leave_their_segment(stub, client, name):
    stub.answer({})
    await client.get(PODS, name, "ns")
    assert stub.requests[0].rel_url.raw_path.count("/") == 6
    assert stub.requests[0].match_info["tail"].startswith("api/v1/namespaces/ns/pods/")


async def collect(watch, count):
    events = []
    async for item in watch:
        events.append(item)
        if len(events) == count:
            break
    await watch.aclose()
    return events


@pytest.mark.parametrize("chunk", [0, 1, 7, 50])
async def test_watch_lines_arrive_whole_however_they_are_cut(stub, client, make, chunk):
    stub.watch(
        make.event("ADDED", make.obj("a", 2)),
        b"",
        make.event("MODIFIED", make.obj("a", 3)),
        make.bookmark(9),
        make.event("DELETED", make.obj("a", 10)),
        chunk=chunk,
    )
    events = await collect(client.watch(PODS, type=Pod, resource_version="1", field_selector="spec.nodeName=n"), 4)
    assert [(e.type, e.resource_version) for e in events] == [
        ("ADDED", "2"), ("MODIFIED", "3"), ("BOOKMARK", "9"), ("DELETED", "10"),
    ]  # fmt: skip
    query = stub.query(0)
    assert 300 <= int(query.pop("timeoutSeconds")) <= 600
    assert query == {
        "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "1", "fieldSelector": "spec.nodeName=n",
    }  # fmt: skip


async def test_watch_lines_may_be_megabytes(stub, client, make):
    stub.watch(make.event("ADDED", make.obj("a", 2, big="x" * 3_000_000)))
    (event,) = await collect(client.watch(PODS, type=Pod), 1)
    assert len(event.object.metadata.labels["big"]) == 3_000_000


async def test_watch_gone_as_status_and_as_event(stub, client, make):
    stub.answer(make.status(410, "Expired"), 410)
    with pytest.raises(errors.Gone):
        await collect(client.watch(PODS, resource_version="1"), 1)
    stub.watch(make.event("ERROR", make.status(410, "Expired", "too old resource version")))
    with pytest.raises(errors.Gone, match="too old"):
        await collect(client.watch(PODS, resource_version="1"), 1)


@pytest.mark.parametrize("line", [b"not json", b"{}", b'{"type":"ADDED","object":{]}', b"[1]"])
async def test_a_line_that_is_no_event(stub, client, line):
    stub.watch(line)
    with pytest.raises(errors.ApiError):
        await collect(client.watch(PODS, type=Pod), 1)


async def test_a_bad_object_in_a_watch_is_skipped_when_asked(stub, client, make):
    stub.watch(make.event("ADDED", {"metadata": {"name": 1}}), make.event("ADDED", make.obj("a", 2)))
    bad = []
    (event,) = await collect(client.watch(PODS, type=Pod, on_bad=lambda body, error: bad.append(body)), 1)
    assert event.object.key == "ns/a"
    assert bad == [b'{"metadata":{"name":1}}']


async def test_the_end_of_a_watch_and_a_break_differ(stub, client, make):
    stub.watch(make.event("ADDED", make.obj("a", 2)), then="end")
    assert len(await collect(client.watch(PODS, type=Pod), 5)) == 1
    stub.watch(make.event("ADDED", make.obj("a", 2)), then="abort")
    with pytest.raises(errors.ServerUnavailable):
        await collect(client.watch(PODS, type=Pod), 5)


async def test_a_silent_watch_is_given_up(stub, client, make):
    stub.watch(make.event("ADDED", make.obj("a", 2)))
    with pytest.raises(errors.ServerUnavailable, match="no answer in time"):
        await collect(client.watch(PODS, type=Pod, idle_timeout=0.1), 5)


async def test_watches_do_not_use_up_the_connections(stub, make):
    async with Client(Config(stub.url), max_connections=1) as c:
        for _ in range(3):
            stub.watch(make.event("ADDED", make.obj("a", 2)))
        watches = [c.watch(PODS, type=Pod) for _ in range(3)]
        for watch in watches:
            await anext(watch)
        stub.answer(make.obj("a", 1))
        async with asyncio.timeout(5):
            await c.get(PODS, "a", "ns")
        for watch in watches:
            await watch.aclose()


async def test_the_rate_limit_spreads_requests(stub, make, monkeypatch):
    pauses = []
    real = asyncio.sleep

    async def sleep(seconds):
        if seconds:
            pauses.append(seconds)
        await real(0)

    monkeypatch.setattr("nodewright.kube.ratelimit.asyncio.sleep", sleep)
    async with Client(Config(stub.url), qps=10, burst=2) as c:
        for _ in range(4):
            stub.answer(make.obj("a", 1))
            await c.get(PODS, "a", "ns")
    assert len(pauses) == 2, "two pass at once, the others wait"
    assert 0.0 < pauses[0] <= 0.1
    assert 0.1 < pauses[1] <= 0.2


async def test_a_closed_client_says_so(stub):
    c = Client(Config(stub.url))
    await c.close()
    await c.close()
    with pytest.raises(RuntimeError, match="closed"):
        await c.get(PODS, "a", "ns")
