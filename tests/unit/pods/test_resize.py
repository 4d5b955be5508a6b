"""In-place resize: what is compared, the order of writes, who is granted what, and how a worker does it."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube.objects import Pod, ResourceRequirements
from nodewright_agent.pods import admission, qos
from nodewright_agent.pods.model import PodState
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.resize import allocation, messages, plan
from nodewright_agent.pods.resize.actuate import ResizeError
from nodewright_agent.pods.resize.manager import ResizeManager
from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.spec import Resources
from unit.pods.pod_doubles import Rig, make_pod, run_virtual

FREE = {"pods": "10", "cpu": "1", "memory": "1Gi"}


def resources(cpu: str = "", memory: str = "", *, limit_cpu: str = "", limit_memory: str = "") -> dict[str, Any]:
    requests = {"cpu": cpu, "memory": memory}
    limits = {"cpu": limit_cpu, "memory": limit_memory}
    return {
        "requests": {name: value for name, value in requests.items() if value},
        "limits": {name: value for name, value in limits.items() if value},
    }


def one(name: str = "a", cpu: str = "100m", memory: str = "64Mi", **more: Any) -> dict[str, Any]:
    limits = {"limit_cpu": more.pop("limit_cpu", ""), "limit_memory": more.pop("limit_memory", "")}
    return {"name": name, "resources": resources(cpu, memory, **limits), **more}


def pod_with(*containers: dict[str, Any], generation: int = 1, **spec: Any) -> Pod:
    pod = make_pod(*containers, **spec)
    pod.metadata.generation = generation
    pod.status.qos_class = "Burstable"
    return pod


@pytest.mark.parametrize(("first", "second", "same"), [("1", "1000m", True), ("1", "1001m", False)])
def test_requirements_are_compared_by_value(first: str, second: str, same: bool):
    assert (
        allocation.same(ResourceRequirements(requests={"cpu": first}), ResourceRequirements({}, {"cpu": second}))
        is same
    )
    assert not allocation.same(ResourceRequirements(), ResourceRequirements(requests={"cpu": "0"}))


def test_the_allocated_pod_is_the_desired_one_with_older_resources():
    before = pod_with(one(cpu="100m"), one("b"))
    desired = pod_with(one(cpu="200m", image="newer"), one("b"), generation=2)
    kept = allocation.allocated(desired, before)
    assert [c.resources.requests["cpu"] for c in kept.spec.containers] == ["100m", "100m"]
    assert (kept.spec.containers[0].image, kept.metadata.generation) == ("newer", 2)
    assert allocation.allocated(before, before) is before


def test_what_is_held_is_the_larger_of_allocated_and_actual():
    pod = pod_with(one(cpu="100m", memory="64Mi"))
    actual = ResourceRequirements(requests={"cpu": "300m", "memory": "32Mi"})
    (container,) = allocation.held(pod, {"a": actual}).spec.containers
    assert container.resources.requests == {"cpu": "300m", "memory": "64Mi"}
    assert allocation.held(pod, {"a": pod.spec.containers[0].resources}) is pod


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"), [("200m", "64Mi", False), ("100m", "65Mi", True), ("100m", "64Mi", False)]
)
def test_the_resize_policy_says_what_restarts(cpu: str, memory: str, expected: bool):
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    container = pod_with(one(cpu=cpu, memory=memory, resizePolicy=policy)).spec.containers[0]
    assert allocation.needs_restart(container, pod_with(one()).spec.containers[0].resources) is expected


def change(cid: str, old: tuple[int, int, int], new: tuple[int, int, int]) -> plan.Change:
    """Shares, quota and memory before and after."""

    def made(shares: int, quota: int, memory: int) -> Resources:
        return Resources(cpu_shares=shares, cpu_quota=quota, cpu_period=100_000, memory_limit=memory)

    return plan.Change(cid, cid, made(*old), made(*new))


def limits(shares: int, quota: int, memory: int) -> CgroupLimits:
    return CgroupLimits(cpu_shares=shares, cpu_quota=quota, cpu_period=100_000, memory=memory)


def order(writes: list[plan.Write]) -> list[tuple[str, str]]:
    def kind(limit: CgroupLimits) -> str:
        return "memory" if limit.memory is not None else "quota" if limit.cpu_quota is not None else "shares"

    return [(write.id or "pod", kind(write.limits)) for write in writes]


def test_raising_goes_from_the_pod_to_its_containers_memory_first():
    found = plan.writes(limits(10, 1000, 10), limits(20, 2000, 20), [change("a", (10, 1000, 10), (20, 2000, 20))])
    assert order(found) == [("pod", "memory"), ("a", "memory"), ("pod", "quota"), ("pod", "shares"), ("a", "quota")]


def test_lowering_goes_from_the_containers_to_the_pod():
    found = plan.writes(limits(20, 2000, 20), limits(10, 1000, 10), [change("a", (20, 2000, 20), (10, 1000, 10))])
    assert order(found) == [("a", "memory"), ("pod", "memory"), ("a", "quota"), ("pod", "shares"), ("pod", "quota")]


@given(
    st.lists(
        st.tuples(st.tuples(*[st.integers(2, 9)] * 3), st.tuples(*[st.integers(2, 9)] * 3)), min_size=1, max_size=4
    )
)
def test_no_container_is_ever_allowed_more_than_its_pod(cases: list[tuple[Any, Any]]):
    changes = [change(str(number), old, new) for number, (old, new) in enumerate(cases)]

    def total(which: int) -> CgroupLimits:
        return limits(*(sum(case[which][part] for case in cases) for part in range(3)))

    start, goal = total(0), total(1)
    state = {"": start} | {c.id: limits(*cases[int(c.id)][0]) for c in changes}
    for write in plan.writes(start, goal, changes):
        given_ = {k: v for k, v in msgspec.structs.asdict(write.limits).items() if v is not None}
        state[write.id] = msgspec.structs.replace(state[write.id], **given_)
        pod = state[""]
        for cid, has in state.items():
            if cid:
                assert (has.memory or 0) <= (pod.memory or 0)
                assert (has.cpu_quota or 0) <= (pod.cpu_quota or 0)
    assert state[""] == goal
    assert [state[c.id] for c in changes] == [limits(*new) for _, new in cases]


def test_memory_below_usage_is_refused_in_upstreams_words():
    lower = [change("a", (2, 1000, 20), (2, 1000, 10))]
    assert plan.below_usage(limits(2, 1000, 20), limits(2, 1000, 10), lower, 9, {"a": 9}) == ""
    told = plan.below_usage(limits(2, 1000, 20), limits(2, 1000, 10), lower, 12, {"a": 11})
    assert told == (
        "cannot decrease memory limits: [attempting to set pod memory limit (10) below current usage (12), "
        'attempting to set container "a" memory limit (10) below current usage (11)]'
    )
    higher = [change("a", (2, 1000, 20), (2, 1000, 30))]
    assert plan.below_usage(limits(2, 1000, 20), limits(2, 1000, 30), higher, 99, {"a": 99}) == ""


def test_refusals_of_resizes():
    assert admission.resize_refusal(pod_with(one(cpu="900m")), [], FREE) is None
    assert admission.resize_refusal(pod_with(one(cpu="2")), [], FREE) == (
        "Infeasible",
        "Node didn't have enough capacity: cpu, requested: 2000, capacity: 1000",
    )
    assert admission.resize_refusal(pod_with(one(cpu="700m")), [pod_with(one(cpu="400m"))], FREE) == (
        "Deferred",
        "Node didn't have enough resource: cpu, requested: 700, used: 400, capacity: 1000",
    )
    static = pod_with(one())
    static.metadata.resource_version = ""
    static.metadata.annotations = {"kubernetes.io/config.source": "file"}
    assert admission.resize_refusal(static, [], FREE) == (
        "Infeasible",
        "In-place resize of static-pods is not supported",
    )


def test_the_events_tell_the_resources_as_json():
    pod = pod_with(one(limit_cpu="200m"))
    text = messages.failed(pod, 3, "no way")
    assert text == (
        'Pod resize error: {"containers":[{"name":"a","resources":{"limits":{"cpu":"200m"},'
        '"requests":{"cpu":"100m","memory":"64Mi"}}}],"generation":3,"error":"no way"}'
    )


def test_burstable_pods_share_what_they_ask_for():
    guaranteed = pod_with(one(cpu="500m"))
    guaranteed.status.qos_class = "Guaranteed"
    assert qos.burstable_shares([pod_with(one(cpu="250m")), pod_with(one(cpu="750m")), guaranteed]) == 1024
    assert qos.burstable_shares([]) == 2


class Node:
    """Two workers on a node that decides about resizes."""

    def __init__(self, *pods: Pod) -> None:
        self.rigs = [Rig(pod) for pod in pods]
        self.workers = {rig.worker.uid: rig.worker for rig in self.rigs}
        self.manager = ResizeManager(self.workers, lambda pod, others: admission.resize_refusal(pod, others, FREE))
        for rig in self.rigs:
            rig.deps.resize, rig.deps.room = self.manager.consider, self.manager.retry

    def conditions(self, number: int) -> dict[str, Any]:
        names = ("PodResizePending", "PodResizeInProgress")
        return {c.type: c for c in self.rigs[number].worker.status().conditions if c.type in names}

    async def close(self) -> None:
        for rig in self.rigs:
            await rig.close()


async def settle(seconds: float = 5.0) -> None:
    await asyncio.sleep(seconds)


def test_a_resize_that_fits_is_granted_and_done():
    async def scenario() -> None:
        node = Node(pod_with(one(cpu="100m")))
        (rig,) = node.rigs
        await settle()
        rig.worker.update(pod_with(one(cpu="200m"), generation=2))
        assert node.conditions(0)["PodResizeInProgress"].observed_generation == 2
        await settle()
        assert node.conditions(0) == {}
        assert "resize" in rig.operations.calls
        assert rig.one.resources.requests["cpu"] == rig.one.allocated_resources["cpu"] == "200m"
        assert rig.one.restart_count == 0
        assert [r for r in rig.events.reasons() if r.startswith("Resize")] == ["ResizeStarted", "ResizeCompleted"]
        await node.close()

    run_virtual(scenario())


def test_a_deferred_resize_comes_when_another_gives_back():
    async def scenario() -> None:
        node = Node(pod_with(one(cpu="400m")), pod_with(one(cpu="500m"), uid="uid-2", name="other"))
        first, second = node.rigs
        await settle()
        first.worker.update(pod_with(one(cpu="700m"), generation=2))
        await settle()
        pending = node.conditions(0)["PodResizePending"]
        assert (pending.reason, pending.observed_generation) == ("Deferred", 2)
        assert first.one.resources.requests["cpu"] == "400m", "nothing has changed yet"
        second.operations.delays["resize"] = 3.0
        second.worker.update(pod_with(one(cpu="100m"), uid="uid-2", name="other", generation=2))
        await settle(1)
        assert "PodResizePending" in node.conditions(0), "the other still has what it gives back"
        await settle()
        assert node.conditions(0) == {}
        assert first.one.resources.requests["cpu"] == "700m"
        assert first.events.reasons().count("ResizeDeferred") == 1
        await node.close()

    run_virtual(scenario())


def test_an_infeasible_resize_can_be_taken_back():
    async def scenario() -> None:
        node = Node(pod_with(one(cpu="400m")))
        (rig,) = node.rigs
        await settle()
        rig.worker.update(pod_with(one(cpu="5"), generation=2))
        await settle()
        assert node.conditions(0)["PodResizePending"].reason == "Infeasible"
        assert "ResizeInfeasible" in rig.events.reasons()
        rig.worker.update(pod_with(one(cpu="400m"), generation=3))
        await settle()
        assert node.conditions(0) == {}
        await node.close()

    run_virtual(scenario())


def test_a_failed_try_is_told_and_repeated():
    async def scenario() -> None:
        node = Node(pod_with(one()))
        (rig,) = node.rigs
        await settle()
        rig.operations.failures["resize"] = [ResizeError("no")]
        rig.worker.update(pod_with(one(cpu="200m"), generation=2))
        await settle()
        progress = node.conditions(0)["PodResizeInProgress"]
        assert (progress.reason, progress.message) == ("Error", "no")
        assert "ResizeError" in rig.events.reasons()
        await settle(11)
        assert node.conditions(0) == {}
        await node.close()

    run_virtual(scenario())


def test_a_restart_policy_restarts_the_container_even_where_the_pod_would_not():
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]

    async def scenario() -> None:
        node = Node(pod_with(one(resizePolicy=policy), policy="OnFailure"))
        (rig,) = node.rigs
        await settle()
        rig.worker.update(pod_with(one(cpu="200m", resizePolicy=policy), policy="OnFailure", generation=2))
        await settle()
        assert rig.one.restart_count == 1
        assert rig.one.state.running is not None
        assert rig.one.resources.requests["cpu"] == "200m"
        assert ("Normal", "Killing", "Container a resize requires restart") in rig.events.seen
        calls = rig.operations.calls
        assert calls.index("term a") < calls.index("resize") < len(calls) - 1 - calls[::-1].index("create a")
        await node.close()

    run_virtual(scenario())


def test_a_killed_agent_goes_on(tmp_path: Any):
    async def scenario() -> None:
        records = Records(tmp_path)
        node = Node(pod_with(one()))
        (rig,) = node.rigs
        rig.deps.save = lambda worker: records.save(worker.current(), worker.state)
        await settle()
        rig.operations.delays["resize"] = 60.0
        rig.worker.update(pod_with(one(cpu="200m"), generation=2))
        await settle()
        await node.close()  # killed while cgroups are written
        (record,) = records.load().values()
        state = record.state()
        assert record.pod.spec.containers[0].resources.requests["cpu"] == "200m"
        assert state.resize.progress is not None
        assert state.resize.busy is False
        await again(record.pod, state)

    async def again(pod: Pod, state: PodState) -> None:
        rig = Rig(pod, state=state)
        rig.operations.running = {run.id: run for run in state.all_instances()}
        await settle()
        assert rig.operations.calls.count("resize") == 1
        assert rig.events.reasons().count("ResizeCompleted") == 1
        await rig.close()

    run_virtual(scenario())
