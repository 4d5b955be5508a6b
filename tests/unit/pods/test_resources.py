"""Resources as numbers: cgroups, oom scores, what a node lacks; runtime classes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nodewright.kube.errors import ApiError, NotFound
from nodewright_agent.node.status import extended
from nodewright_agent.pods import admission, resources
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.resources import CgroupSettings
from nodewright_agent.pods.runtimeclass import RuntimeClassError, RuntimeClasses
from nodewright_agent.runtime import cgroup_math
from unit.pods.pod_doubles import make_pod

GIB = 1 << 30


def container(name: str, requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **more: Any):
    return {"name": name, "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def burstable(*containers: dict[str, Any], qos: str = "Burstable", **spec: Any):
    pod = make_pod(*containers, **spec)
    pod.status.qos_class = qos
    return pod


def test_a_pod_without_requests_has_the_least_share_whatever_its_overhead():
    pod = burstable(container("a"), qos="BestEffort", overhead={"cpu": "500m"})
    assert resources.pod_limits(pod).cpu_shares == 2


def test_pod_limits_count_sidecars_and_the_peak_of_initialisation():
    limit = {"cpu": "100m", "memory": "10Mi"}
    init = [
        container("side", limits=limit, restartPolicy="Always"),
        container("once", limits={"cpu": "1", "memory": "1Mi"}),
    ]
    found = resources.pod_limits(burstable(container("a", limits=limit), init=init, overhead={"memory": "1Mi"}))
    assert (found.cpu_quota, found.memory) == (110_000, 21 << 20)


def test_the_limits_of_a_pod_as_a_whole_are_those_of_its_containers_without():
    pod = burstable(
        container("a", {"cpu": "100m"}),
        container("b", limits={"cpu": "200m", "memory": "5Mi"}),
        resources={"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "50Mi"}},
    )
    assert (resources.pod_limits(pod).cpu_quota, resources.pod_limits(pod).memory) == (200_000, 50 << 20)
    assert resources.pod_limits(pod).cpu_shares == 1024
    first, second = (resources.container_resources(pod, one) for one in pod.spec.containers)
    assert (first.cpu_shares, first.cpu_quota, first.memory_limit) == (102, 200_000, 50 << 20)
    assert (second.cpu_quota, second.memory_limit) == (20_000, 5 << 20)


def test_settings_of_the_node():
    settings = CgroupSettings(cpu_quota=False, pod_pids_limit=100, page_sizes=("2MB", "1GB"))
    pod = burstable(container("a", limits={"cpu": "1", "hugepages-2Mi": "4Mi"}))
    limits = resources.pod_limits(pod, settings)
    assert (limits.cpu_quota, limits.pids) == (-1, 100)
    assert limits.hugepages == {"2MB": 4 << 20, "1GB": 0}
    made = resources.container_resources(pod, pod.spec.containers[0], settings)
    assert (made.cpu_quota, made.hugepages) == (-1, {"2MB": 4 << 20, "1GB": 0})
    slower = CgroupSettings(cpu_period=10_000)
    assert resources.container_resources(pod, pod.spec.containers[0], slower).cpu_quota == 10_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hugepages-2Mi", "2MB"),
        ("hugepages-1Gi", "1GB"),
        ("hugepages-1024Mi", "1GB"),
        ("hugepages-64Ki", "64KB"),
        ("memory", ""),
        ("hugepages-x", ""),
    ],
)
def test_page_sizes(name: str, expected: str):
    assert cgroup_math.page_size(name) == expected


def test_oom_scores():
    pod = burstable(
        container("large", {"memory": "2Gi"}),
        container("small", {"memory": "1Gi"}),
        init=[container("side", restartPolicy="Always"), container("big", {"memory": "3Gi"}, restartPolicy="Always")],
    )

    def score(one: Any) -> int:
        return resources.oom_score(pod, one, 4 * GIB)

    assert [score(one) for one in pod.spec.containers] == [500, 750]
    # A sidecar goes no earlier than the main container that goes first.
    assert [score(one) for one in pod.spec.init_containers] == [750, 250]
    pod.spec.priority, pod.spec.priority_class_name = 2_000_001_000, "system-node-critical"
    assert score(pod.spec.containers[0]) == -997
    whole = burstable(container("a", {"memory": "1Gi"}), container("b"), resources={"requests": {"memory": "3Gi"}})
    assert [resources.oom_score(whole, one, 4 * GIB) for one in whole.spec.containers] == [500, 750]


def test_what_is_lacking_by_name():
    pod = burstable(container("a", {"cpu": "2", "memory": "1Gi", "example.com/gpu": "2", "other.io/x": "9"}))
    free = {"pods": "1", "cpu": "1", "memory": "2Gi", "example.com/gpu": "1"}
    other = burstable(container("b", {"example.com/gpu": "1"}))
    lacks = admission.lacking(pod, [other], free)
    assert [(lack.name, lack.amount) for lack in lacks] == [("pods", 1), ("cpu", 1000), ("example.com/gpu", 2)]
    assert lacks[1].refusal == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1000",
    )


def test_extended_resources():
    given = {"cpu": "1", "example.com/gpu": "2", "hugepages-2Mi": "0", "kubernetes.io/x": "1", "requests.a.b/c": "1"}
    assert extended(given) == {"example.com/gpu": "2"}


class Classes:
    """An API server with RuntimeClasses."""

    def __init__(self, found: dict[str, str]) -> None:
        self.found = found

    async def get(self, resource: Any, name: str, *, type: Any) -> Any:
        if name == "broken":
            raise ApiError(500, "InternalError", "no etcd")
        if name not in self.found:
            raise NotFound(404, "NotFound", "no")
        return type(handler=self.found[name])


def test_runtime_classes(tmp_path: Path):
    server = Classes({"built-in": "runc", "mine": "own", "strange": "kata"})
    classes = RuntimeClasses(server, Records(tmp_path), {"own": "/opt/own"})  # type: ignore[arg-type]

    def pod(name: str) -> Any:
        return make_pod(uid=name or "none", runtimeClassName=name or None)

    def run(name: str) -> str:
        asyncio.run(classes.choose(pod(name)))
        return classes.program(pod(name))

    assert (run(""), run("built-in"), run("mine")) == ("", "", "/opt/own")
    del server.found["mine"]
    assert run("mine") == "/opt/own", "a pod keeps the handler that it was made with"
    for name, told in (
        ("absent", 'runtimeclass.node.k8s.io "absent" not found'),
        ("strange", 'failed to get sandbox runtime: no runtime for "kata" is configured'),
        ("broken", "failed to lookup RuntimeClass broken: "),
    ):
        with pytest.raises(RuntimeClassError) as caught:
            run(name)
        assert str(caught.value).startswith(told)
