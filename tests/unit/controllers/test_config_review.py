"""What the operator says about NodeAgentConfigs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodewright.controllers.configs.review import Review, Verdict, node_configs, prune, status_patch
from nodewright.kube.api.nodeconfigs import NodeAgentConfig
from unit.liveconfig.config_objects import config

NODES = {"a": {"disk": "ssd"}, "b": {"disk": "hdd"}, "c": {}}


def said(name: str, status: str = "True", generation: int = 1, kind: str = "Applied") -> dict[str, Any]:
    condition = {"type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": generation}
    return {"name": name, "conditions": [condition]}


def review(*objects: NodeAgentConfig) -> dict[str, Review]:
    return node_configs(objects, NODES)


def test_objects_of_different_priorities_may_contradict_each_other():
    found = review(config("x", {"maxPods": 5}), config("y", {"maxPods": 6, "priority": 1}))
    assert {name: one.accepted for name, one in found.items()} == dict.fromkeys(
        ("x", "y"), Verdict("True", "Valid", "")
    )


def test_of_two_with_the_same_priority_the_younger_is_not_accepted():
    older = config("z", {"maxPods": 5, "containerLogMaxFiles": 3}, creationTimestamp="2025-01-01T00:00:00Z")
    younger = config("a", {"maxPods": 6, "containerLogMaxFiles": 3})
    found = review(younger, older)
    assert found["z"].accepted.value == "True"
    assert (found["a"].accepted.value, found["a"].accepted.reason) == ("False", "Conflict")
    assert "maxPods of z (on a, b, c)" in found["a"].accepted.message


@pytest.mark.parametrize(
    "spec",
    [
        {"maxPods": 5},
        {"containerLogMaxFiles": 3},
        {"maxPods": 6, "nodeSelector": {"matchLabels": {"disk": "hdd"}}},
        {"maxPods": 6, "nodeSelector": {"matchLabels": {"disk": "tape"}}},
    ],
)
def test_what_agrees_or_means_other_nodes_or_other_fields_is_no_conflict(spec):
    ssd = config("one", {"maxPods": 5, "nodeSelector": {"matchLabels": {"disk": "ssd"}}})
    assert review(ssd, config("two", spec))["two"].accepted.value == "True"


def test_an_invalid_object_is_not_accepted_and_in_nobodys_way():
    found = review(config("bad", {"maxPods": -1}), config("good", {"maxPods": 5}))
    assert found["bad"].accepted == Verdict("False", "Invalid", "maxPods: -1 is no whole number from 0 on")
    assert found["good"].accepted.value == "True"


@pytest.mark.parametrize(
    ("entries", "value", "reason", "done", "text"),
    [
        ([], "Unknown", "Waiting", 0, "0 of 3 nodes; no word from a, b, c"),
        ([said("a"), said("b"), said("c")], "True", "Applied", 3, "3 of 3 nodes"),
        ([said("a"), said("b", generation=0), said("c")], "Unknown", "Waiting", 2, "no word from b"),
        ([said("a"), said("b", "False")], "False", "NotAppliedEverywhere", 1, "not on b (R: m)"),
        ([said("a"), said("b"), said("c"), said("gone")], "True", "Applied", 3, "3 of 3 nodes"),
    ],
)
def test_progress_on_the_nodes(entries, value, reason, done, text):
    found = review(config("x", {"maxPods": 5}, status={"nodes": entries}))["x"]
    assert (found.applied.value, found.applied.reason, found.selected, found.done) == (value, reason, 3, done)
    assert text in found.applied.message


def test_agent_and_proxy_of_one_node_both_have_to_apply():
    both = said("a")
    both["conditions"] += said("a", "False", kind="ProxyApplied")["conditions"]
    only = {"nodeSelector": {"matchLabels": {"disk": "ssd"}}}
    assert review(config("x", only, status={"nodes": [both]}))["x"].applied.value == "False"


def test_an_object_that_selects_no_node():
    found = review(config("x", {"nodeSelector": {"matchLabels": {"disk": "tape"}}}))["x"]
    assert (found.applied.reason, found.selected, found.done) == ("NoNodes", 0, 0)


def apply(obj: NodeAgentConfig, patch: dict[str, Any]) -> NodeAgentConfig:
    raw = msgspec.to_builtins(obj)
    raw["status"] = {**raw.get("status", {}), **patch["status"]}
    return msgspec.convert(raw, NodeAgentConfig)


def test_status_is_written_only_where_it_says_something_new():
    obj = config("x", {"maxPods": 5}, generation=2, status={"nodes": [said("a")]})
    verdict = Review(Verdict("True", "Valid", ""), Verdict("Unknown", "Waiting", "0 of 1"), 1, 0)
    patch = status_patch(obj, verdict, "t1")
    assert patch is not None
    assert patch["metadata"] == {"name": "x", "uid": "uid-x"}
    assert "nodes" not in patch["status"], "those belong to the nodes"
    assert {c["type"]: (c["status"], c["message"]) for c in patch["status"]["conditions"]} == {
        "Accepted": ("True", ""),
        "Applied": ("Unknown", "0 of 1"),
    }
    obj = apply(obj, patch)
    assert status_patch(obj, verdict, "t2") is None
    later = Review(verdict.accepted, Verdict("True", "Applied", "1 of 1"), 1, 1)
    patch = status_patch(obj, later, "t3")
    assert patch is not None
    assert {c["type"]: c["lastTransitionTime"] for c in patch["status"]["conditions"]} == {
        "Accepted": "t1",
        "Applied": "t3",
    }
    assert (patch["status"]["selected"], patch["status"]["applied"]) == (1, 1)


def test_entries_of_nodes_that_are_gone_are_removed():
    obj = config("x", status={"nodes": [said("a"), said("gone")]}, resourceVersion="7")
    patch = prune(obj, NODES)
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert [entry["name"] for entry in patch["status"]["nodes"]] == ["a"]
    assert prune(config("x", status={"nodes": [said("a")]}), NODES) is None
