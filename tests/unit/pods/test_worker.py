"""A pod's life with in-memory doubles, in virtual time."""

import asyncio
from itertools import pairwise

import msgspec
import pytest

from unit.pods.pod_doubles import FakeOperations, ImageProblem, Rig, StartError, deleted, make_pod, scenario


def test_runs_and_is_reported_once():
    @scenario(make_pod())
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert rig.operations.calls[:3] == ["sandbox", "volumes", "image a"]
        assert rig.status.phase == "Running"
        assert rig.one.ready
        assert rig.one.started
        assert rig.one.restart_count == 0
        assert rig.one.container_id.startswith("nodewright://")
        assert rig.status.pod_ip == "10.1.2.3"
        assert rig.status.host_ip == "192.0.2.1"
        assert {c.type: c.status for c in rig.status.conditions} == dict.fromkeys(
            ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"], "True"
        )


def test_crash_back_off_follows_upstream():
    """First restart at once, then 10, 20, 40 s after each end."""

    @scenario(make_pod(), FakeOperations(lifetimes={"a": [(1, 1)] * 5}))
    async def _(rig: Rig) -> None:
        starts = []
        for _ in range(5):
            while rig.operations.calls.count("start a") <= len(starts):  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)
            starts.append(asyncio.get_running_loop().time())
        gaps = [round(later - earlier - 1) for earlier, later in pairwise(starts)]
        assert gaps == [0, 10, 20, 40]
        waits = [s.container_statuses[0] for s in rig.sink.statuses if s.container_statuses[0].state.waiting]
        crashed = [w for w in waits if w.state.waiting.reason == "CrashLoopBackOff"]
        assert crashed[0].state.waiting.message == "back-off 10s restarting failed container=a pod=pod_ns(uid-1)"
        assert crashed[0].last_state.terminated.exit_code == 1
        assert crashed[0].last_state.terminated.reason == "Error"
        assert all(s.phase == "Running" for s in rig.sink.statuses if s.container_statuses[0].restart_count)
        assert rig.events.reasons().count("BackOff") == 3


def with_image(pod, image):
    (container,) = pod.spec.containers
    changed = msgspec.structs.replace(container, image=image)
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, containers=[changed]))


def test_changes_of_the_image_restart_at_once_and_count():
    @scenario(make_pod())
    async def _(rig: Rig) -> None:
        for number in range(1, 4):
            await asyncio.sleep(1)
            rig.worker.update(with_image(rig.worker.pod, f"img:{number}"))
            await asyncio.sleep(1)
            assert rig.one.ready
            assert rig.one.restart_count == number
            assert rig.one.image == f"img:{number}"
        assert "BackOff" not in rig.events.reasons()


def test_another_image_ends_the_back_off_of_a_crash():
    @scenario(make_pod(), FakeOperations(lifetimes={"a": [(1, 1)] * 3}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(6)
        assert rig.one.state.waiting.reason == "CrashLoopBackOff"
        rig.worker.update(with_image(rig.worker.pod, "img:2"))
        await asyncio.sleep(0.5)
        assert rig.one.state.waiting is None
        assert rig.operations.calls.count("start a") == 3


def test_another_image_ends_the_back_off_of_a_container_that_runs():
    @scenario(make_pod(), FakeOperations(lifetimes={"a": [(5, 1)] * 20}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(177)  # 6 runs of 5 s, with waits of 0, 10, 20, 40 and 80 s; the next would be 160
        assert rig.one.restart_count == 5
        assert rig.one.state.running is not None
        rig.worker.update(with_image(rig.worker.pod, "img:2"))
        await asyncio.sleep(18)  # it is stopped, runs for 5 s, waits for 10 s as after a first crash, and runs again
        assert rig.one.restart_count == 7
        assert rig.one.state.running is not None


def test_another_image_is_pulled_at_once_where_the_pull_of_one_has_failed():
    problem = ImageProblem("ErrImagePull", "no such image")

    @scenario(make_pod(), FakeOperations(failures={"image a": [problem] * 2}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(15)
        assert rig.one.state.waiting.reason == "ImagePullBackOff"
        rig.worker.update(with_image(rig.worker.pod, "img:2"))
        await asyncio.sleep(0.5)
        assert rig.one.ready


def test_an_image_that_is_changed_while_it_is_pulled_is_not_started():
    @scenario(make_pod(), FakeOperations(delays={"image a": 5}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(2)
        rig.worker.update(with_image(rig.worker.pod, "img:2"))
        await asyncio.sleep(4)
        assert "start a" not in rig.operations.calls
        await asyncio.sleep(5)
        assert rig.one.ready
        assert rig.operations.calls.count("image a") == 2


def test_back_off_is_reset_after_a_long_run():
    @scenario(make_pod(), FakeOperations(lifetimes={"a": [(1, 1), (1, 1), (700, 1), (1, 1)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1 + 1 + 10 + 700 + 5)
        assert rig.operations.calls.count("start a") == 4


@pytest.mark.parametrize(
    ("policy", "code", "phase", "runs"),
    [
        ("Never", 0, "Succeeded", 1),
        ("Never", 3, "Failed", 1),
        ("OnFailure", 0, "Succeeded", 1),
        ("OnFailure", 3, "Running", 2),
        ("Always", 0, "Running", 2),
    ],
)
def test_restart_policy(policy, code, phase, runs):
    @scenario(make_pod(policy=policy), FakeOperations(lifetimes={"a": [(1, code)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(5)
        assert rig.status.phase == phase
        assert rig.operations.calls.count("start a") == runs
        ended = phase in ("Succeeded", "Failed")
        assert ("teardown" in rig.operations.calls) is ended
        assert not rig.sink.deletions
        if ended:
            assert rig.one.state.terminated.exit_code == code
            assert rig.status.pod_ip == "10.1.2.3"


def test_deletion_with_grace_that_is_ignored():
    @scenario(make_pod(), FakeOperations(ignore_term={"a"}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 5))
        await asyncio.sleep(4.9)
        assert "kill a" not in rig.operations.calls
        await asyncio.sleep(0.2)
        assert rig.operations.calls[-4:] == ["term a", "kill a", "teardown", "forget"]
        assert rig.sink.deletions == ["uid-1"]
        assert rig.status.phase == "Failed"
        assert rig.one.state.terminated.exit_code == 137
        assert rig.task.done()
        assert rig.events.seen[-1] == ("Normal", "Killing", "Stopping container a")


def test_a_second_deletion_shortens_the_grace():
    @scenario(make_pod(), FakeOperations(ignore_term={"a"}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 30))
        await asyncio.sleep(3)
        rig.worker.update(deleted(rig.worker.pod, 1))
        await asyncio.sleep(0.1)
        assert "kill a" in rig.operations.calls


def test_forced_deletion_still_stops_the_container():
    @scenario(make_pod(), FakeOperations(ignore_term={"a"}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.remove()
        await asyncio.sleep(2.1)
        assert rig.operations.calls[-4:] == ["term a", "kill a", "teardown", "forget"]
        assert not rig.sink.deletions
        assert rig.task.done()


def test_deletion_while_the_image_is_pulled():
    @scenario(make_pod(), FakeOperations(delays={"image a": 1000}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 30))
        await asyncio.sleep(1)
        assert rig.sink.deletions == ["uid-1"]
        assert "create a" not in rig.operations.calls
        assert rig.status.phase == "Failed"
        assert rig.one.state.terminated.reason == "ContainerStatusUnknown"


def test_deletion_before_the_sandbox_is_begun():
    """Cancelled before its first step: the tear-down must not wait for it."""

    @scenario(make_pod())
    async def _(rig: Rig) -> None:
        rig.worker.update(deleted(rig.worker.pod, 30))
        await asyncio.sleep(1)
        assert rig.sink.deletions == ["uid-1"]


def test_image_pull_errors():
    errors: list[Exception] = [ImageProblem("ErrImagePull", "no such image")] * 2

    @scenario(make_pod(), FakeOperations(failures={"image a": errors}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        assert rig.one.state.waiting.reason == "ErrImagePull"
        assert rig.one.state.waiting.message == "no such image"
        assert rig.status.phase == "Pending"
        await asyncio.sleep(3)
        assert rig.one.state.waiting.reason == "ImagePullBackOff"
        assert rig.one.state.waiting.message == 'Back-off pulling image "img": ErrImagePull: no such image'
        await asyncio.sleep(8)
        assert rig.operations.calls.count("image a") == 2
        await asyncio.sleep(20)
        assert rig.status.phase == "Running"
        assert ("Normal", "BackOff", 'Back-off pulling image "img"') in rig.events.seen


def test_a_store_that_cannot_be_read_is_tried_again():
    @scenario(make_pod(), FakeOperations(failures={"image a": [OSError(5, "I/O error")]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        assert rig.one.state.waiting.reason == "ErrImagePull"
        assert rig.one.state.waiting.message == "OSError: [Errno 5] I/O error"
        await asyncio.sleep(12)
        assert rig.status.phase == "Running"


def test_a_pull_that_somebody_else_gave_up_is_begun_again():
    @scenario(make_pod(), FakeOperations(failures={"image a": [asyncio.CancelledError()]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(2)
        assert rig.operations.calls.count("image a") == 2
        assert rig.status.phase == "Running"


def test_command_that_does_not_exist():
    error = StartError("RunContainerError", 'exec: "nope": not found', ran=True)

    @scenario(make_pod(), FakeOperations(failures={"start a": [error, error, error]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert rig.one.state.waiting.reason == "RunContainerError"
        ended = rig.one.last_state.terminated
        assert (ended.exit_code, ended.reason, ended.message) == (128, "StartError", 'exec: "nope": not found')
        await asyncio.sleep(3)
        assert rig.one.state.waiting.reason == "CrashLoopBackOff"
        assert rig.status.phase == "Running"  # as upstream: a container that ended once is not Pending
        assert rig.one.restart_count == 1


def test_configuration_error_is_tried_again():
    error = StartError("CreateContainerConfigError", 'configmap "x" not found')

    @scenario(make_pod(), FakeOperations(failures={"create a": [error]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert rig.one.state.waiting.reason == "CreateContainerConfigError"
        assert rig.status.phase == "Pending"
        assert rig.one.restart_count == 0
        await asyncio.sleep(10)
        assert rig.status.phase == "Running"
        assert rig.one.restart_count == 0
        assert rig.one.state.waiting is None


def test_sandbox_and_volume_failures_are_told_and_tried_again():
    operations = FakeOperations(failures={"sandbox": [OSError("no addresses")], "volumes": [OSError("no such secret")]})

    @scenario(make_pod(), operations)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert ("Warning", "FailedCreatePodSandBox", "Failed to create pod sandbox: no addresses") in rig.events.seen
        assert ("Warning", "FailedMount", "no such secret") in rig.events.seen
        assert rig.one.state.waiting.reason == "ContainerCreating"
        await asyncio.sleep(10)
        assert rig.status.phase == "Running"


def test_volumes_are_tried_again_soon_and_then_ever_later():
    operations = FakeOperations(failures={"volumes": [OSError("no such secret")] * 7})

    @scenario(make_pod(), operations)
    async def _(rig: Rig) -> None:
        tries = []
        for seconds in (0.4, 0.2, 1, 2, 4, 8, 10, 10):  # it waits for 0.5, 1, 2, 4, 8, 10, 10 of them
            await asyncio.sleep(seconds)
            tries.append(operations.calls.count("volumes"))
        assert tries == [1, 2, 3, 4, 5, 6, 7, 8]
        assert rig.status.phase == "Running"


def test_init_containers_run_one_after_the_other():
    pod = make_pod(init=[{"name": "i1"}, {"name": "i2"}])

    @scenario(pod, FakeOperations(lifetimes={"i1": [(1, 1), (1, 0)], "i2": [(1, 0)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        assert rig.status.phase == "Pending"
        assert rig.one.state.waiting.reason == "PodInitializing"
        await asyncio.sleep(5)
        starts = [call for call in rig.operations.calls if call.startswith("start")]
        assert starts == ["start i1", "start i1", "start i2", "start a"]
        assert rig.status.phase == "Running"
        assert [s.ready for s in rig.status.init_container_statuses] == [True, True]


def test_failed_init_container_fails_the_pod():
    pod = make_pod(init=[{"name": "i1"}], policy="Never")

    @scenario(pod, FakeOperations(lifetimes={"i1": [(1, 9)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(5)
        assert rig.status.phase == "Failed"
        assert rig.one.state.waiting.reason == "PodInitializing"
        assert "start a" not in rig.operations.calls


def test_sidecar_starts_first_is_kept_and_stops_last():
    pod = make_pod(init=[{"name": "side", "restartPolicy": "Always"}], policy="Never")

    @scenario(pod, FakeOperations(lifetimes={"side": [(5, 1)], "a": [(20, 0)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        starts = [call for call in rig.operations.calls if call.startswith("start")]
        assert starts == ["start side", "start a"]
        await asyncio.sleep(10)
        assert rig.operations.calls.count("start side") == 2
        await asyncio.sleep(20)
        assert rig.operations.calls[-2:] == ["term side", "teardown"]
        assert rig.status.phase == "Succeeded"


def test_sidecars_stop_in_reverse_order_after_the_main_containers():
    side = [{"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}]

    @scenario(make_pod(init=side))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 30))
        await asyncio.sleep(1)
        assert [call for call in rig.operations.calls if call.startswith("term")] == ["term a", "term s2", "term s1"]


def test_pre_stop_uses_the_grace_and_then_two_seconds_are_left():
    pod = make_pod({"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}})

    @scenario(pod, FakeOperations(ignore_term={"a"}, delays={"preStop a": 100}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(deleted(rig.worker.pod, 5))
        await asyncio.sleep(5.1)
        assert rig.operations.calls[-1] == "term a"
        await asyncio.sleep(1.8)
        assert rig.operations.calls[-1] == "term a"
        await asyncio.sleep(0.2)
        assert "kill a" in rig.operations.calls


def test_active_deadline():
    @scenario(make_pod(activeDeadlineSeconds=20))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(19)
        assert rig.status.phase == "Running"
        await asyncio.sleep(2)
        assert (rig.status.phase, rig.status.reason) == ("Failed", "DeadlineExceeded")
        assert rig.status.message == "Pod was active on the node longer than the specified deadline"
        assert not rig.sink.deletions


def test_changed_image_restarts_the_container():
    @scenario(make_pod(policy="Never"))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        rig.worker.update(make_pod({"name": "a", "image": "new"}, policy="Never"))
        await asyncio.sleep(1)
        assert "term a" in rig.operations.calls


def test_failed_post_start_hook_kills_the_container():
    pod = make_pod({"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}})
    error = StartError("PostStartHookError", "exit 1")

    @scenario(pod, FakeOperations(failures={"postStart a": [error]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        assert "FailedPostStartHook" in rig.events.reasons()
        assert "term a" in rig.operations.calls


def test_rejected_pod_fails_and_runs_nothing():
    @scenario(make_pod())
    async def _(rig: Rig) -> None:
        rig.worker.reject("OutOfcpu", "Node didn't have enough resource: cpu")
        await asyncio.sleep(1)
        assert rig.operations.calls == []
        assert (rig.status.phase, rig.status.reason) == ("Failed", "OutOfcpu")
        assert rig.status.message == "Pod was rejected: Node didn't have enough resource: cpu"
        assert rig.status.container_statuses == [], "kubectl would show these instead of the reason"
        rig.worker.update(deleted(rig.worker.pod, 30))
        await asyncio.sleep(1)
        assert rig.sink.deletions == ["uid-1"]


def test_a_fault_of_ours_is_told_and_tried_again():
    @scenario(make_pod(), FakeOperations(failures={"create a": [RuntimeError("bug")]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert rig.one.state.waiting.reason == "CreateContainerError"
        assert rig.one.state.waiting.message == "RuntimeError: bug"
        await asyncio.sleep(10)
        assert rig.status.phase == "Running"


def test_an_ended_container_does_not_wait_for_its_hook():
    pod = make_pod({"name": "a", "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}}, policy="Never")

    @scenario(pod, FakeOperations(delays={"postStart a": 1000}, lifetimes={"a": [(1, 0)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(3)
        assert rig.status.phase == "Succeeded"
