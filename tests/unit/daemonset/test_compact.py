"""What is kept of pods: equal parts once, and nothing that nobody asks for."""

import msgspec
import pytest

from nodewright.controllers.daemonset import compact
from nodewright.controllers.daemonset.model import Pod
from support.daemonset_objects import pod


def test_equal_parts_are_one():
    a, b, other = pod("a", "n1"), pod("b", "n2"), pod("c", "n1", hash="old", owner="another")
    assert a.metadata.labels is b.metadata.labels
    assert a.metadata.owner_references is b.metadata.owner_references
    assert a.status.conditions is b.status.conditions
    assert other.metadata.labels["controller-revision-hash"] == "old"
    assert other.metadata.owner_references[0].uid == "another"
    assert a.metadata.owner_references[0].uid == "uid"


def test_parts_that_differ_in_anything_stay_apart():
    assert compact.labels({"a": "1"}) != compact.labels({"a": "2"})
    assert compact.shared(("x", 1), [1]) == [1]
    assert compact.shared(("x", 2), [2]) == [2]
    assert pod("a", ready=True).status.conditions != pod("b", ready=False).status.conditions
    assert pod("a", since="2026-01-01T00:00:00Z").status.conditions[0].last_transition_time == "2026-01-01T00:00:00Z"


def test_the_memory_of_parts_is_bounded():
    for i in range(10_000):
        compact.shared(("bounded", i), i)
    assert len(compact._parts) <= 2048
    assert pod("a").metadata.labels is pod("b").metadata.labels


def test_of_the_conditions_only_ready_is_kept():
    raw = {
        "metadata": {"name": "p"},
        "status": {"conditions": [{"type": t, "status": "True"} for t in ("Initialized", "Ready", "PodScheduled")]},
    }
    assert [c.type for c in msgspec.convert(raw, Pod).status.conditions] == ["Ready"]


@pytest.mark.parametrize(
    ("fields", "node"),
    [
        ([{"key": "metadata.name", "operator": "In", "values": ["n7"]}], "n7"),
        ([{"key": "metadata.name", "operator": "In", "values": ["n7", "n8"]}], None),
        ([{"key": "metadata.name", "operator": "NotIn", "values": ["n7"]}], None),
        ([], None),
    ],
)
def test_the_node_that_a_pod_is_pinned_to(fields, node):
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    found = msgspec.convert({"metadata": {"name": "p"}, "spec": {"affinity": affinity}}, Pod)
    assert found.target_node == node
    assert found.spec.affinity is None
    again = msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, priority=3))
    assert again.target_node == node, "it outlives a copy"


def test_a_bound_pod_is_where_it_is_bound():
    raw = {"metadata": {"name": "p"}, "spec": {"nodeName": "here"}}
    assert msgspec.convert(raw, Pod).target_node == "here"
