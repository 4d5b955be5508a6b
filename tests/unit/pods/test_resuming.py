"""What a worker goes on with after another agent: hooks, unseen ends, the grace that is left; in virtual time."""

import asyncio

import msgspec
import pytest

from nodewright.kube.objects import ContainerStatus
from nodewright_agent.pods.model import Instance, PodState, Step, StepState, Termination
from unit.pods.pod_doubles import START, FakeOperations, Rig, StartError, deleted, make_pod, scenario

HOOKED = {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}
STOPPED = {"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}


class Messages(FakeOperations):
    def end_message(self, pod, container, run):
        return f"of {run.id}"


def running(**more) -> PodState:
    state = PodState(start_time=START, sandbox=Step(StepState.READY), volumes=Step(StepState.READY))
    state.add(Instance("c1", "a", 0, state="running", image="img", started_at=START, **more))
    return state


def alive(state: PodState, **more) -> FakeOperations:
    return FakeOperations(running={run.id: run for run in state.all_instances()}, **more)


@pytest.mark.parametrize("told", [True, False])
def test_a_post_start_hook_is_run_again_unless_the_api_was_told_that_it_was_done(told):
    state, pod = running(post_start_done=False), make_pod(HOOKED)
    known = ContainerStatus("a", told, 0, "img", "", container_id="nodewright://c1", started=told)
    pod.status.container_statuses = [known]

    @scenario(pod, alive(state), state)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert rig.operations.calls.count("postStart a") == (not told)
        assert rig.one.started
        assert (rig.one.restart_count, rig.one.container_id) == (0, "nodewright://c1")


def test_a_post_start_hook_that_fails_the_second_time_ends_its_container():
    state = running(post_start_done=False)
    failures = {"postStart a": [StartError("PostStartHookError", "no")]}

    @scenario(make_pod(HOOKED), alive(state, failures=failures), state)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert "term a" in rig.operations.calls
        assert rig.one.restart_count == 1


def test_a_container_that_ended_before_its_hook_has_none_run():
    """Its end is seen while it is being started."""
    operations = FakeOperations(delays={"start a": 1.0})

    @scenario(make_pod(HOOKED, policy="Never"), operations)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        run = rig.worker.state.latest("a")
        operations.running[run.id] = run
        operations.end(run.id, 4)
        await asyncio.sleep(2)
        assert "postStart a" not in operations.calls
        assert rig.status.phase == "Failed"
        assert rig.one.state.terminated.exit_code == 4


def test_messages_of_ends_that_nobody_saw_are_read():
    state = running()
    state.latest("a").state = "exited"
    state.latest("a").exit_code = 3

    @scenario(make_pod(policy="Never"), Messages(), state)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert rig.status.phase == "Failed"
        assert rig.one.state.terminated.message == "of c1"


def test_a_deletion_goes_on_with_the_grace_that_is_left():
    state, pod = running(), deleted(make_pod(STOPPED), 30)
    state.termination = Termination(started_at=START - 25, deadline=START + 5)
    operations = alive(state, ignore_term={"a"}, delays={"preStop a": 100})

    @scenario(pod, operations, state)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(4.9)
        assert operations.calls[-1] == "preStop a"
        await asyncio.sleep(2.2)
        assert [call for call in operations.calls if call.endswith(" a")] == ["preStop a", "term a", "kill a"]


def test_the_end_of_a_pod_is_saved_when_it_begins():
    saved = []

    @scenario(make_pod(), FakeOperations(ignore_term={"a"}))
    async def _(rig: Rig) -> None:
        rig.deps.save = lambda worker: saved.append(msgspec.to_builtins(worker.state.termination))
        await asyncio.sleep(1)
        rig.worker.update(deleted(make_pod(), 30))
        await asyncio.sleep(1)
        assert saved[0]["deadline"] == START + 31
