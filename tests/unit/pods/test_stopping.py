"""How containers are stopped: hooks, order, graces; in virtual time."""

import asyncio

import pytest

from nodewright_agent.pods import killing
from nodewright_agent.pods.actions import EndHook, KillContainer, SignalContainer, StopContainer
from nodewright_agent.pods.model import Instance, PodState, Stop, Termination
from unit.pods.pod_doubles import FakeOperations, Rig, deleted, make_pod, scenario

HOOK = {"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}


def steps(rig: Rig, *words: str) -> list[str]:
    return [call for call in rig.operations.calls if call.split(" ")[0] in words]


@pytest.mark.parametrize(
    ("stop", "limit", "turn", "now", "expected"),
    [
        (Stop(10), None, True, 1, SignalContainer("1", "a")),
        (Stop(10), None, False, 1, 10),
        (Stop(10), 5, False, 1, 5),
        (Stop(10), 5, False, 5, SignalContainer("1", "a")),
        (Stop(10, hook=True), None, True, 1, 10),
        (Stop(10, hook=True), 4, True, 1, 4),
        (Stop(10, hook=True), 4, True, 4, EndHook("1", "a")),
        (Stop(10, term_sent=True), None, True, 9, 10),
        (Stop(10, term_sent=True), None, True, 10, KillContainer("1", "a")),
        (Stop(10, term_sent=True, floor=11), None, True, 10, 11),
        (Stop(10, term_sent=True, floor=3), 2, True, 2.5, 3),
        (Stop(10, term_sent=True, kill_sent=True), None, True, 20, None),
    ],
)
def test_the_next_step_of_a_stop(stop, limit, turn, now, expected):
    run = Instance("1", "a", 0, state="running", stop=stop)
    action, wake = killing.step(run, now, limit=limit, turn=turn)
    assert (action if action is not None else wake) == expected


def test_hooks_of_sidecars_run_at_once_and_their_signals_wait():
    side = [{"name": "s1", "restartPolicy": "Always", **HOOK}, {"name": "s2", "restartPolicy": "Always", **HOOK}]
    delays = {"preStop s1": 1.0, "preStop s2": 1.0, "preStop a": 3.0}

    @scenario(make_pod({"name": "a", **HOOK}, init=side), FakeOperations(delays=delays))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 30))
        await asyncio.sleep(0.1)
        assert sorted(steps(rig, "preStop")) == ["preStop a", "preStop s1", "preStop s2"]
        await asyncio.sleep(2)
        assert steps(rig, "term") == []
        await asyncio.sleep(1)
        assert steps(rig, "term") == ["term a", "term s2", "term s1"]


def test_sidecars_do_not_outlive_the_grace_of_stubborn_main_containers():
    side = [{"name": "s", "restartPolicy": "Always"}]

    @scenario(make_pod(init=side), FakeOperations(ignore_term={"a", "s"}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 5))
        await asyncio.sleep(5.1)
        assert steps(rig, "term", "kill") == ["term a", "term s", "kill a"]
        await asyncio.sleep(2)
        assert steps(rig, "kill") == ["kill a", "kill s"]


def test_a_shorter_deletion_ends_the_hook_too():
    @scenario(make_pod({"name": "a", **HOOK}), FakeOperations(delays={"preStop a": 100}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 60))
        await asyncio.sleep(5)
        assert steps(rig, "term") == []
        rig.worker.update(deleted(rig.worker.pod, 2))
        await asyncio.sleep(0.1)
        assert steps(rig, "term") == ["term a"]
        assert rig.task.done()


def test_a_hook_holds_nothing_up_once_its_container_has_ended():
    operations = FakeOperations(delays={"preStop a": 100}, lifetimes={"a": [(3, 0)]})

    @scenario(make_pod({"name": "a", **HOOK}), operations)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 60))
        await asyncio.sleep(3)
        assert rig.task.done()
        assert steps(rig, "term", "kill") == []


def test_a_forced_deletion_leaves_two_seconds_for_hook_and_signal():
    @scenario(make_pod({"name": "a", **HOOK}), FakeOperations(ignore_term={"a"}, delays={"preStop a": 100}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 0))
        await asyncio.sleep(4.1)
        assert steps(rig, "preStop", "term", "kill") == ["preStop a", "term a", "kill a"]


def test_a_deletion_while_init_containers_run():
    @scenario(make_pod(init=[{"name": "i", **HOOK}, {"name": "j"}]), FakeOperations(ignore_term={"i"}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 3))
        await asyncio.sleep(4)
        assert steps(rig, "start", "term", "kill") == ["start i", "term i", "kill i"]
        assert rig.status.phase == "Failed"
        assert [one.state.waiting is not None for one in rig.status.init_container_statuses] == [False, True]
        assert rig.one.state.waiting.reason == "PodInitializing"


def test_a_failed_probe_has_its_own_grace():
    probe = {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 4}

    @scenario(make_pod({"name": "a", "livenessProbe": probe}), FakeOperations(ignore_term={"a"}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.state.latest("a").liveness = False  # type: ignore[union-attr]
        rig.worker.wake()
        await asyncio.sleep(3.9)
        assert steps(rig, "kill") == []
        await asyncio.sleep(0.2)
        assert steps(rig, "kill") == ["kill a"]
        assert ("Normal", "Killing", "Container a failed liveness probe, will be restarted") in rig.events.seen


@pytest.mark.parametrize(
    ("grace", "now", "least"), [(1.0, 0.01, 1.0), (30.0, 29.9, 2.0), (2.0, 1.5, 2.0), (0.0, 0.0, 2.0)]
)
def test_a_grace_of_a_second_lasts_a_second_also_when_some_of_it_is_gone(grace, now, least):
    pod = deleted(make_pod({"name": "a"}), int(grace))
    run = Instance("1", "a", 0, state="running")
    state = PodState(instances={"a": [run]})
    termination = Termination(started_at=0.0, deadline=killing.window(grace))
    (action,), _ = killing.stop_all(pod, state, termination, now)
    assert isinstance(action, StopContainer)
    assert action.grace == termination.deadline - now
    assert killing.begin(now, action.grace, action.whole).least == least
