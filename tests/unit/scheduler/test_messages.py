"""What people and scripts read: messages, conditions, events, bindings."""

from collections import Counter

import msgspec
import pytest

from nodewright.scheduler.announcer import Announcement, event_body
from nodewright.scheduler.binder import binding_body
from nodewright.scheduler.conditions import Refusal, condition_patch, is_recorded
from nodewright.scheduler.diagnosis import Diagnosis, truncate_note
from nodewright.scheduler.events import Event, bound_pod_events, node_events
from support.scheduler_builders import info, make_node, make_pod


@pytest.mark.parametrize(
    ("diagnosis", "text"),
    [
        (Diagnosis(0), "no nodes available to schedule pods"),
        (Diagnosis(3), "0/3 nodes are available:"),
        (
            Diagnosis(3, prefilter_message="pod affinity terms conflict"),
            "0/3 nodes are available: pod affinity terms conflict.",
        ),
        (Diagnosis(3, reasons=Counter({"Too many pods": 3})), "0/3 nodes are available: 3 Too many pods."),
        (
            Diagnosis(12, reasons=Counter({"y": 2, "x": 10, "a": 2})),
            "0/12 nodes are available: 10 x, 2 a, 2 y.",
        ),
        (
            Diagnosis(1, reasons=Counter({"x": 1}), postfilter_message="preemption: none."),
            "0/1 nodes are available: 1 x. preemption: none.",
        ),
    ],
)
def test_fit_errors(diagnosis, text):
    assert diagnosis.message() == text


def test_notes_are_cut_to_what_the_api_takes():
    assert truncate_note("x" * 1024) == "x" * 1024
    assert truncate_note("x" * 1025) == "x" * 1020 + " ..."
    cut = truncate_note("ü" * 600)
    assert len(cut.encode()) <= 1024
    assert cut.endswith("ü ...")


def test_a_binding_names_pod_uid_and_node():
    pod = info(make_pod("web-0", namespace="shop", uid="u-1"))
    assert msgspec.json.decode(binding_body(pod, 'n"1')) == {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-1"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": 'n"1'},
    }


def test_the_event_of_a_placed_pod():
    pod = info(make_pod("web-0", namespace="shop", uid="u-1"))
    event = msgspec.json.decode(event_body(Announcement(pod, "n1", "fancy", "T", 0.0), "host-1", 255))
    assert event["metadata"] == {"name": "web-0.ff", "namespace": "shop"}
    assert event["note"] == "Successfully assigned shop/web-0 to n1"
    assert (event["type"], event["reason"], event["action"]) == ("Normal", "Scheduled", "Binding")
    assert (event["reportingController"], event["reportingInstance"]) == ("fancy", "host-1")
    assert event["regarding"]["uid"] == "u-1"
    long = info(make_pod("x" * 253))
    assert (
        len(msgspec.json.decode(event_body(Announcement(long, "n", "p", "T", 0.0), "h", 2**63))["metadata"]["name"])
        <= 253
    )


def refusal(conditions=()):
    pod = make_pod("a", uid="u")
    pod.metadata.generation = 3
    pod = msgspec.convert({**msgspec.to_builtins(pod), "status": {"conditions": list(conditions)}}, type(pod))
    return Refusal(info(pod), "Unschedulable", "why")


def test_the_condition_of_a_pod_that_fits_nowhere():
    patch = condition_patch(refusal(), "T")
    assert patch == {
        "metadata": {"uid": "u"},
        "status": {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "why",
                    "observedGeneration": 3,
                    "lastTransitionTime": "T",
                }
            ]
        },
    }


def test_a_changed_message_keeps_the_time_of_the_transition():
    known = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "before"}
    assert "lastTransitionTime" not in condition_patch(refusal([known]), "T")["status"]["conditions"][0]
    assert not is_recorded(refusal([known]))
    assert is_recorded(refusal([{**known, "message": "why"}]))


def test_kinds_of_node_events():
    node = make_node("n", labels={"a": "b"})
    assert node_events(None, node) == Event.NODE_ADD
    assert node_events(node, None) == Event.NODE_DELETE
    assert node_events(node, make_node("n", labels={"a": "b"})) == Event.NONE
    assert node_events(node, make_node("n", "8", labels={"a": "b"})) == Event.NODE_ALLOCATABLE
    assert node_events(node, make_node("n", labels={"a": "c"})) == Event.NODE_LABEL
    assert node_events(node, make_node("n", labels={"a": "b"}, unschedulable=True)) == Event.NODE_TAINT


def test_kinds_of_pod_events():
    pod = info(make_pod(requests={"cpu": "2"}, labels={"a": "b"}))
    assert bound_pod_events(pod, info(make_pod(requests={"cpu": "2"}, labels={"a": "b"}))) == Event.NONE
    assert bound_pod_events(pod, info(make_pod(requests={"cpu": "1"}, labels={"a": "b"}))) == Event.POD_SCALE_DOWN
    assert bound_pod_events(pod, info(make_pod(requests={"cpu": "3"}, labels={}))) == Event.POD_LABEL
