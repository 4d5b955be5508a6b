"""The benchmark's own judgement: an outcome against the rules is found."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from scheduler_checks import State, violations
from scheduler_metrics import histogram
from scheduler_workloads import WORKLOADS, node_object, pod_object


def outcome(workload, *numbers, nodes=6):
    """What is wrong when the Pods of the workload are on the nodes with these numbers."""
    template = WORKLOADS[workload].pod
    pods = [pod_object(f"p{i}", template, "s", f"node-{number:05}") for i, number in enumerate(numbers)]
    for pod in pods:
        pod["metadata"]["namespace"] = "bench"
    return violations(State([node_object(number) for number in range(nodes)], pods))


@pytest.mark.parametrize(
    ("workload", "right", "wrong", "words"),
    [
        ("spread", (0, 1, 2, 3), (0, 3, 1, 2, 0, 3), "unevenly"),
        ("spread", (0,), (0, 3), "unevenly"),
        ("affinity", (0, 3, 0), (0, 3, 1), "not with the Pods"),
        ("affinity", (2,), (0, 1), "not with the Pods"),
        ("anti-required", (0, 1, 2), (0, 1, 0), "2 Pods are in"),
        ("node-affinity", (0, 1, 3), (0, 2), "against its node affinity"),
        ("preemption", (0, 1), (0, 0), "node-00000 is over-committed: 48 of 32 cpu"),
        ("basic", (0,), (7,), "does not exist"),
    ],
)
def test_a_broken_rule_is_found(workload, right, wrong, words):
    assert outcome(workload, *right) == []
    found = outcome(workload, *wrong)
    assert found
    assert any(words in what for what in found)


def test_preferred_rules_may_be_broken():
    assert outcome("anti-preferred", 0, 0, 0) == []


def test_the_number_of_pods_is_limited_too():
    assert outcome("basic", *[0] * 110) == []
    assert outcome("basic", *[0] * 111) == ["node-00000 is over-committed: 111 of 110 pods"]


def test_quantiles_of_a_histogram_over_its_labels():
    text = """
# TYPE d histogram
d_bucket{result="a",le="0.1"} 5
d_bucket{result="a",le="0.2"} 8
d_bucket{result="a",le="+Inf"} 8
d_bucket{result="b",le="0.1"} 5
d_bucket{result="b",le="0.2"} 10
d_bucket{result="b",le="+Inf"} 12
d_sum{result="a"} 1.5
d_sum{result="b"} 2.5
d_count{result="a"} 8
"""
    found = histogram(text, "d")
    assert (found.count, found.mean) == (20, 0.2)
    assert found.quantile(0.25) == pytest.approx(0.05)
    assert found.quantile(0.7) == pytest.approx(0.15)
    assert found.quantile(0.99) == 0.2  # all that is known is that it lies beyond
    assert histogram(text, "e") is None
