"""The comparison can fail: each kind of wrong answer is seen."""

from __future__ import annotations

import pytest

from differential.cases import Case
from differential.clusters import HOSTNAME, Object
from differential.lab import Lab
from differential.profiles import make_profile
from differential.session import hold

pytestmark = pytest.mark.timeout(3600)


def node(name: str, **spec: object) -> Object:
    amounts = {"cpu": "2", "memory": "4Gi", "pods": "10"}
    status = {"allocatable": amounts, "capacity": amounts}
    return {"metadata": {"name": name, "labels": {HOSTNAME: name}}, "spec": spec, "status": status}


def pod(name: str, cpu: str = "100m", **spec: object) -> Object:
    container = {"name": "c", "image": "none:1", "resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": name, "namespace": "blue"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 30,
            "containers": [container],
            **spec,
        },
    }


AVOIDED = [{"key": "spot", "value": "x", "effect": "PreferNoSchedule"}]
TWO_NODES = [node("n0", taints=AVOIDED), node("n1")]
CORDONED = [node("n0", unschedulable=True), node("n1")]
# Two that may go; the one that has less to lose is on n1.
PREEMPTION = Case(
    [node("n0"), node("n1")],
    [
        {**pod(f"b{number}", "1500m", nodeName=f"n{number}", priorityClassName=name), "status": {"startTime": start}}
        for number, (name, start) in enumerate(
            [("middle", "2026-01-01T00:00:00Z"), ("low", "2026-01-01T00:00:01Z")],
        )
    ],
    [pod("p0", "1", priorityClassName="high"), pod("p1", "1", priorityClassName="polite")],
)


@pytest.mark.parametrize(
    "case",
    [Case(TWO_NODES, [], [pod("p0")]), Case(CORDONED, [], [pod("p0"), pod("p1", "4")]), PREEMPTION],
    ids=["scores", "filters", "victims"],
)
def test_agreement(lab: Lab, case: Case):
    hold(lab, case, make_profile())


def test_a_wrong_weight(lab: Lab):
    wrong = make_profile(score={"enabled": [{"name": "TaintToleration", "weight": 4}]})
    with pytest.raises(AssertionError, match=r"TaintToleration of n1: upstream 300, ours 400"):
        hold(lab, Case(TWO_NODES, [], [pod("p0")]), wrong)


def test_a_missing_filter(lab: Lab):
    wrong = make_profile(filter={"disabled": [{"name": "NodeUnschedulable"}]})
    with pytest.raises(AssertionError, match=r"feasible upstream \['n1'\], ours \['n0', 'n1'\]"):
        hold(lab, Case(CORDONED, [], [pod("p0")]), wrong)


def test_a_wrong_message(lab: Lab):
    wrong = make_profile(filter={"disabled": [{"name": "NodeUnschedulable"}]})
    with pytest.raises(AssertionError, match="messages differ"):
        hold(lab, Case(CORDONED, [], [pod("p0", "4")]), wrong)


def test_a_missing_preemption(lab: Lab):
    wrong = make_profile(postFilter={"disabled": [{"name": "DefaultPreemption"}]})
    with pytest.raises(AssertionError, match=r"nominated upstream n1, ours None|messages differ"):
        hold(lab, PREEMPTION, wrong)
