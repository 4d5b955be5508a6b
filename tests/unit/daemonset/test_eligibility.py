import msgspec
import pytest

from nodewright.controllers.daemonset.eligibility import Verdict, default_tolerations, judge
from nodewright.controllers.daemonset.model import Template
from support.daemonset_objects import node


def template(**spec):
    return msgspec.convert({"spec": spec}, Template)


def required(*terms):
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


ZONE_A = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
TOLERATE = {"key": "dedicated", "operator": "Equal", "value": "x", "effect": "NoSchedule"}
YES, NO = (True, True), (False, False)


@pytest.mark.parametrize(
    ("spec", "labels", "taints", "expected"),
    [
        pytest.param({}, {}, (), YES, id="anything goes"),
        pytest.param({"nodeName": "n1"}, {}, (), YES, id="named node"),
        pytest.param({"nodeName": "n2"}, {}, (), NO, id="other node named"),
        pytest.param({"nodeSelector": {"zone": "a"}}, {"zone": "a"}, (), YES, id="selector"),
        pytest.param({"nodeSelector": {"zone": "a"}}, {"zone": "b"}, (), NO, id="selector differs"),
        pytest.param({"nodeSelector": {"zone": ""}}, {}, (), NO, id="selector wants an empty value"),
        pytest.param({"affinity": required(ZONE_A)}, {"zone": "a"}, (), YES, id="affinity"),
        pytest.param({"affinity": required(ZONE_A)}, {}, (), NO, id="affinity differs"),
        pytest.param({"affinity": required({})}, {}, (), NO, id="an empty term matches no node"),
        pytest.param(
            {"affinity": required(ZONE_A), "nodeSelector": {"b": "c"}}, {"zone": "a"}, (), NO, id="both must match"
        ),
        pytest.param({}, {}, ("dedicated=x:NoSchedule",), (False, True), id="NoSchedule: stay, do not start"),
        pytest.param({}, {}, ("dedicated=x:NoExecute",), NO, id="NoExecute: leave"),
        pytest.param({}, {}, ("dedicated=x:PreferNoSchedule",), YES, id="PreferNoSchedule does not count"),
        pytest.param({"tolerations": [TOLERATE]}, {}, ("dedicated=x:NoSchedule",), YES, id="tolerated"),
        pytest.param({"tolerations": [TOLERATE]}, {}, ("dedicated=y:NoSchedule",), (False, True), id="other value"),
        pytest.param(
            {"tolerations": [TOLERATE]},
            {},
            ("dedicated=x:NoSchedule", "dedicated=x:NoExecute"),
            NO,
            id="one taint of two tolerated",
        ),
        pytest.param({}, {}, ("node.kubernetes.io/not-ready:NoExecute",), YES, id="not ready"),
        pytest.param({}, {}, ("node.kubernetes.io/not-ready:NoSchedule",), (False, True), id="not ready, NoSchedule"),
        pytest.param({}, {}, ("node.kubernetes.io/unreachable:NoExecute",), YES, id="unreachable"),
        pytest.param({}, {}, ("node.kubernetes.io/unschedulable:NoSchedule",), YES, id="cordoned"),
        pytest.param({}, {}, ("node.kubernetes.io/disk-pressure:NoSchedule",), YES, id="disk pressure"),
        pytest.param({}, {}, ("node.kubernetes.io/memory-pressure:NoSchedule",), YES, id="memory pressure"),
        pytest.param({}, {}, ("node.kubernetes.io/pid-pressure:NoSchedule",), YES, id="pid pressure"),
        pytest.param(
            {}, {}, ("node.kubernetes.io/network-unavailable:NoSchedule",), (False, True), id="no network yet"
        ),
        pytest.param(
            {"hostNetwork": True}, {}, ("node.kubernetes.io/network-unavailable:NoSchedule",), YES, id="host network"
        ),
    ],
)
def test_judge(spec, labels, taints, expected):
    verdict = judge(template(**spec), node("n1", labels, taints))
    assert (verdict.should_run, verdict.should_continue) == expected
    assert bool(verdict.reason) == (not verdict.should_run)


def test_the_reason_names_what_stands_in_the_way():
    assert judge(template(nodeSelector={"zone": "a"}), node("n1")).reason == "node selector zone=a does not match"
    tainted = node("n1", taints=("a:NoSchedule", "b=c:NoExecute"))
    assert judge(template(), tainted) == Verdict(False, False, "untolerated taint b=c:NoExecute")


def test_default_tolerations_are_upstreams():
    keys = [(t.key.removeprefix("node.kubernetes.io/"), t.effect) for t in default_tolerations(False)]
    assert keys == [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ]
    assert default_tolerations(True)[-1].key == "node.kubernetes.io/network-unavailable"
    assert all(t.operator == "Exists" for t in default_tolerations(True))
