"""Which pods a critical one pushes out."""

from typing import Any

import pytest

from nodewright.kube.objects import Pod
from nodewright_agent.pods import preemption
from nodewright_agent.pods.admission import Lack, lacking
from unit.pods.pod_doubles import make_pod

CRITICAL = 2_000_001_000


def pod(name: str, cpu: str = "", qos: str = "Burstable", **spec: Any) -> Pod:
    requests = {"cpu": cpu} if cpu else {}
    made = make_pod({"name": "a", "resources": {"requests": requests}}, name=name, uid=name, **spec)
    made.status.qos_class = qos
    return made


CRITICAL_POD = pod("critical", "500m", priority=CRITICAL)


def names(found: list[Pod]) -> list[str]:
    return [one.metadata.name for one in found]


def need(cpu: int) -> list[Lack]:
    return [Lack("cpu", cpu, 0, 0)]


@pytest.mark.parametrize(
    ("others", "cpu", "expected"),
    [
        ([pod("small", "200m"), pod("large", "600m")], 500, ["large"]),
        ([pod("exact", "500m"), pod("large", "600m")], 500, ["exact"]),
        ([pod("a", "200m"), pod("b", "400m")], 500, ["b", "a"]),
        ([pod("b", "500m"), pod("g", "500m", "Guaranteed")], 500, ["b"]),
        ([pod("best", "", "BestEffort"), pod("g", "500m", "Guaranteed")], 500, ["g"]),
        ([pod("a", "200m")], 500, []),
        ([pod("other", "900m", priority=CRITICAL)], 500, []),
    ],
)
def test_victims(others: list[Pod], cpu: int, expected: list[str]):
    assert names(preemption.victims(CRITICAL_POD, others, need(cpu))) == expected


def test_only_critical_pods_preempt():
    assert preemption.victims(pod("normal", "500m", priority=1), [pod("a", "1")], need(500)) == []


def test_a_place_is_made_by_ending_one_pod():
    others = [pod("best", "", "BestEffort"), pod("b", "100m")]
    lacks = lacking(CRITICAL_POD, others, {"pods": "2", "cpu": "4"})
    assert names(preemption.victims(CRITICAL_POD, others, lacks)) == ["best"]
