"""Small pieces: times, conditions, owners, resources, objects, backoff, rate limits, logs, leases."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube import conditions, leases, logs, owners, resources, times
from nodewright.kube.backoff import Backoff
from nodewright.kube.objects import (
    Endpoint,
    EndpointSlice,
    Lease,
    LeaseSpec,
    NodeSelector,
    ObjectMeta,
    OwnerReference,
    Pod,
    Service,
    Volume,
)
from nodewright.kube.ratelimit import TokenBucket


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-01-02T03:04:05Z", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2020-01-02t03:04:05.123456789z", datetime(2020, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2020-01-02T03:04:05.5+02:00", datetime(2020, 1, 2, 1, 4, 5, 500000, tzinfo=UTC)),
        ("2020-01-02T03:04:05-00:30", datetime(2020, 1, 2, 3, 34, 5, tzinfo=UTC)),
    ],
)
def test_times_are_read(text, expected):
    assert times.parse_rfc3339(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2020-01-02", "2020-01-02T03:04:05", "2020-13-01T00:00:00Z", "2020-01-02 03:04:05Z", "x",
             "2020-01-02T03:04:05+25:00", "2020-01-02T03:04:60Z", "２020-01-02T03:04:05Z"],
)  # fmt: skip
def test_other_texts_are_no_times(text):
    with pytest.raises(ValueError, match="RFC 3339"):
        times.parse_rfc3339(text)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
                    min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)))  # fmt: skip
def test_times_survive_the_wire(moment):
    text = times.format_rfc3339(moment, micro=True)
    assert len(text) == 27
    assert times.parse_rfc3339(text) == moment
    assert times.parse_rfc3339(times.format_rfc3339(moment)) == moment.replace(microsecond=0)


def test_a_time_needs_a_zone():
    with pytest.raises(ValueError, match="zone"):
        times.format_rfc3339(datetime(2020, 1, 1))
    assert times.seconds_since("2020-01-01T00:00:00Z", datetime(2020, 1, 1, 0, 1, tzinfo=UTC)) == 60


def test_conditions_keep_when_they_changed():
    found = []
    assert conditions.set_condition(found, "Ready", "False", "Starting", now="t1")
    assert not conditions.set_condition(found, "Ready", "False", "Starting", now="t2")
    assert conditions.set_condition(found, "Ready", "False", "Waiting", now="t3")
    assert found[0].last_transition_time == "t1"
    assert conditions.set_condition(found, "Ready", "True", "Up", observed_generation=2, now="t4")
    assert (found[0].last_transition_time, found[0].observed_generation) == ("t4", 2)
    assert conditions.is_true(found, "Ready")
    assert not conditions.is_true(found, "Other")


def test_owners():
    owner = Pod(ObjectMeta(name="o", uid="u1"))
    reference = owners.owner_reference(owner)
    assert reference == OwnerReference("v1", "Pod", "o", "u1", True, True)
    child = ObjectMeta(owner_references=[OwnerReference("v1", "Pod", "x", "u0"), reference])
    assert owners.controller_of(child) is reference
    assert owners.is_controlled_by(child, owner)
    assert not owners.is_controlled_by(child, Pod(ObjectMeta(name="o", uid="u2")))
    assert owners.controller_of(ObjectMeta()) is None
    assert owners.owner_reference(owner, controller=False).controller is None
    made = owners.owner_reference(owner, resource=resources.DAEMONSETS)
    assert (made.api_version, made.kind) == ("nodewright.dev/v1alpha1", "DaemonSet")
    with pytest.raises(ValueError, match="uid"):
        owners.owner_reference(Pod(ObjectMeta(name="o")))


def test_paths():
    assert resources.PODS.path() == "/api/v1/pods"
    assert resources.PODS.path("ns") == "/api/v1/namespaces/ns/pods"
    assert resources.PODS.path("ns", "p", "status") == "/api/v1/namespaces/ns/pods/p/status"
    assert resources.NODES.path(None, "n") == "/api/v1/nodes/n"
    assert resources.LEASES.path("a/b", "c?") == "/apis/coordination.k8s.io/v1/namespaces/a%2Fb/leases/c%3F"
    assert resources.DAEMONSETS.api_version == "nodewright.dev/v1alpha1"


@pytest.mark.parametrize(
    ("resource", "arguments"),
    [
        (resources.PODS, (None, "p")), (resources.PODS, ("", "p")), (resources.NODES, ("ns", "n")),
        (resources.PODS, ("ns", None, "status")), (resources.PODS, ("ns", "..")), (resources.PODS, (".", "p")),
        (resources.PODS, ("ns", "")),
    ],
)  # fmt: skip
def test_impossible_paths(resource, arguments):
    with pytest.raises(ValueError, match=r"namespace|name|subresource"):
        resource.path(*arguments)


def test_nulls_that_go_writes_are_empty_lists():
    slice_ = msgspec.json.decode(
        b'{"metadata":{"name":"s"},"addressType":"IPv4","endpoints":[{"addresses":null}],"ports":null}',
        type=EndpointSlice,
    )
    assert (slice_.ports, slice_.endpoints[0].addresses) == ([], [])
    assert msgspec.json.decode(b'{"nodeSelectorTerms":null}', type=NodeSelector).node_selector_terms == []


def test_the_names_on_the_wire():
    names = {f.encode_name for f in msgspec.structs.fields(type(Service(ObjectMeta()).spec))}
    assert {"clusterIP", "clusterIPs", "externalIPs", "loadBalancerIP", "sessionAffinity", "ipFamilies"} <= names
    names = {f.encode_name for f in msgspec.structs.fields(type(Pod(ObjectMeta()).spec))}
    assert {"hostPID", "hostIPC", "setHostnameAsFQDN", "hostNetwork", "dnsConfig", "os"} <= names
    names = {f.encode_name for f in msgspec.structs.fields(type(Pod(ObjectMeta()).status))}
    assert {"podIP", "podIPs", "hostIP", "hostIPs", "qosClass"} <= names
    names = {f.encode_name for f in msgspec.structs.fields(Volume)}
    assert {"emptyDir", "downwardAPI", "awsElasticBlockStore", "scaleIO", "persistentVolumeClaim"} <= names


def test_volumes_know_their_source():
    volume = msgspec.json.decode(b'{"name":"v","emptyDir":{}}', type=Volume)
    assert volume.source == "emptyDir"
    assert b'"emptyDir":{}' in msgspec.json.encode(volume)
    assert msgspec.json.decode(b'{"name":"v","fromTheFuture":{}}', type=Volume).source == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"{}", (True, True, False)), (b'{"ready":false}', (False, False, False)),
     (b'{"ready":false,"serving":true,"terminating":true}', (False, True, True))],
)  # fmt: skip
def test_endpoint_conditions_that_are_not_set(text, expected):
    endpoint = msgspec.json.decode(b'{"addresses":[],"conditions":' + text + b"}", type=Endpoint)
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == expected


def test_backoff():
    backoff = Backoff(1, 5, rand=lambda: 0.5)
    assert [backoff.next() for _ in range(4)] == [1.5, 3.0, 5, 5]
    backoff.reset()
    assert backoff.next() == 1.5


def test_token_bucket():
    bucket = TokenBucket(2.0, 3, 0.0)
    assert [bucket.try_take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.try_take(0.5)
    assert bucket.reserve(0.5) == pytest.approx(0.5)
    assert bucket.reserve(0.5) == pytest.approx(1.0)
    assert not bucket.try_take(0.0), "a clock that steps back gives no tokens"
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(0, 1, 0)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (LeaseSpec(), True),
        (LeaseSpec("", 15, renew_time="2020-01-01T00:00:00.000000Z"), True),
        (LeaseSpec("me", 15, renew_time="2020-01-01T00:00:00.000000Z"), True),
        (LeaseSpec("me", 15, renew_time="2020-01-01T00:00:46.000000Z"), False),
        (LeaseSpec("me", 15, renew_time="garbage"), True),
    ],
)
def test_expired_leases(spec, expected):
    assert leases.expired(Lease(ObjectMeta(), spec), datetime(2020, 1, 1, 0, 1, tzinfo=UTC)) is expected


@pytest.fixture
def logged():
    root = logging.getLogger()
    level = root.level
    stream = io.StringIO()

    def start(json_):
        logs.setup(logging.INFO, json=json_, stream=stream)
        return stream

    yield start
    for handler in [h for h in root.handlers if getattr(h, "_nodewright", False)]:
        root.removeHandler(handler)
    root.setLevel(level)


def test_text_logs(logged):
    stream = logged(False)
    logging.getLogger("x.y").info("line\nbreak %s", 1, extra={"pod": "ns/p", "why": "two words"})
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert 'INFO    x.y line\\nbreak 1 pod=ns/p why="two words"\n' in line


def test_json_logs(logged):
    stream = logged(True)
    logged(True)  # a second set-up replaces the first
    try:
        raise KeyError("k")
    except KeyError:
        logging.getLogger("x").exception("failed", extra={"pod": "ns/p", "odd": object(), "message2": "ü"})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"], entry["pod"]) == ("error", "x", "failed", "ns/p")
    assert "KeyError" in entry["exception"]
    assert entry["message2"] == "ü"
