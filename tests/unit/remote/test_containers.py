"""What is done with a runtime's containers, against a runtime of the test's own."""

import asyncio

import grpc
import pytest

from nodewright_agent.cri import wire
from nodewright_agent.remote.client import CallFailed
from nodewright_agent.runtime.errors import ContainerNotFound, ContainerStateError, ExecError, RunContainerError
from nodewright_agent.runtime.spec import Phase, Resources
from unit.remote.runtime_double import ORDER, SECOND


async def test_a_container_that_was_never_started_goes(made):
    made.runtime.container("c1", "CONTAINER_CREATED")
    await made.containers.open()
    assert made.containers.find("c1") is None
    assert made.runtime.statuses == {}


async def test_create_and_start(made):
    made.runtime.sandbox("s1")
    await made.containers.open()
    record = await made.containers.create("s1", wire.ContainerConfig(), None)
    assert (record.id, record.state.phase) == ("new", Phase.CREATED)
    assert await made.containers.start("new") == 2.0
    assert record.running
    assert record.cgroup.endswith("/crio-new.scope")
    assert made.told == []


async def test_a_refused_start_is_a_run_that_failed(made):
    await made.containers.open()
    await made.containers.create("s1", wire.ContainerConfig(), None)
    made.runtime.fails["StartContainer"] = CallFailed("gone", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(CallFailed, match="gone"):
        await made.containers.start("new")
    made.runtime.fails["StartContainer"] = CallFailed("not initialized yet", grpc.StatusCode.UNKNOWN)
    with pytest.raises(CallFailed, match="not initialized yet"):  # it may be tried again
        await made.containers.start("new")
    made.runtime.fails["StartContainer"] = CallFailed("no such file", grpc.StatusCode.UNKNOWN)
    made.runtime.ends("new", 128, "StartError")
    with pytest.raises(RunContainerError, match="no such file"):
        await made.containers.start("new")


async def test_a_start_counts_though_the_runtime_ends_right_after(made):
    await made.containers.open()
    await made.containers.create("s1", wire.ContainerConfig(), None)
    made.runtime.fails["ContainerStatus"] = CallFailed("gone", grpc.StatusCode.UNAVAILABLE)
    assert await made.containers.start("new")
    assert made.containers.find("new") is not None


async def test_what_a_failed_call_made_does_not_hold_the_name(made):
    await made.containers.open()
    made.runtime.container("half", "CONTAINER_CREATED")
    made.runtime.fails["CreateContainer"] = CallFailed("late", grpc.StatusCode.DEADLINE_EXCEEDED)
    with pytest.raises(CallFailed, match="late"):
        await made.containers.create("s1", ORDER, None)
    assert made.runtime.statuses == {}


async def test_a_run_of_which_the_answer_never_came_makes_room_for_the_next(made):
    await made.containers.open()
    made.runtime.container("lost")
    await made.containers.look()
    await made.containers.create("s1", ORDER, None)
    assert list(made.runtime.statuses) == ["new"]
    methods = [method for method, _ in made.runtime.calls]
    assert methods.index("RemoveContainer") < methods.index("CreateContainer")


async def test_an_empty_sandbox_that_nobody_asked_for_is_removed(made):
    made.containers.cared_for = lambda uid: uid == "u1"
    made.runtime.sandbox("recovered", uid="u0")
    await made.containers.open()
    made.runtime.sandbox("s1")
    made.runtime.sandbox("late", uid="u2")
    await made.containers.look()
    await made.containers.look()
    async with asyncio.timeout(10):
        while "late" in made.runtime.sandboxes or "u2" in made.containers.sandboxes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert set(made.runtime.sandboxes) == {"recovered", "s1"}
    made.runtime.sandbox("used", uid="u3")
    made.runtime.container("c1", sandbox="used")
    made.runtime.within = "used"
    for _ in range(3):
        await made.containers.look()
        await asyncio.sleep(0)
    assert "used" in made.runtime.sandboxes


async def test_stop_leaves_the_time_to_us_and_kill_has_none(made):
    made.runtime.container("c1")
    made.runtime.container("c2")
    await made.containers.open()
    await made.containers.stop("c1")
    await made.containers.kill("c2")
    times = [fields["timeout"] for method, fields in made.runtime.calls if method == "StopContainer"]
    assert times[0] > 10**9 // 2
    assert times[1] == 0
    assert [one[:2] for one in made.told] == [("c1", 0), ("c2", 137)]
    await made.containers.kill("unknown to all")


async def test_delete(made):
    made.runtime.container("c1")
    await made.containers.open()
    with pytest.raises(ContainerStateError):
        await made.containers.delete("c1")
    await made.containers.delete("c1", force=True)
    assert made.told == [("c1", 137, False, "")]
    assert made.runtime.statuses == {}
    await made.containers.delete("c1", force=True)
    with pytest.raises(ContainerNotFound):
        await made.containers.wait("c1")


async def test_exec(made):
    made.runtime.container("c1")
    await made.containers.open()
    result = await made.containers.exec("c1", ["x"], timeout=0.5, max_output=2)
    assert (result.code, result.stdout, result.stderr, result.truncated) == (3, b"ou", b"er", True)
    assert made.runtime.calls[-1][1]["timeout"] == 1
    made.runtime.fails["ExecSync"] = CallFailed("late", grpc.StatusCode.DEADLINE_EXCEEDED)
    assert (await made.containers.exec("c1", ["x"], timeout=1)).timed_out
    made.runtime.fails["ExecSync"] = CallFailed("no such file", grpc.StatusCode.UNKNOWN)
    with pytest.raises(ExecError, match="no such file"):
        await made.containers.exec("c1", ["x"])


async def test_update_changes_what_is_given_and_tells_all(made):
    made.runtime.container("c1")
    await made.containers.open()
    await made.containers.update("c1", Resources(memory_limit=2 << 20))
    linux = made.runtime.calls[-1][1]["linux"]
    assert (linux.cpu_shares, linux.memory_limit_in_bytes) == (512, 2 << 20)
    assert made.containers.find("c1").spec.resources.memory_limit == 2 << 20
    made.runtime.fails["UpdateContainerResources"] = CallFailed("busy", grpc.StatusCode.UNKNOWN)
    with pytest.raises(OSError, match="busy"):
        await made.containers.update("c1", Resources(memory_limit=1))


async def test_what_was_written(made):
    stats = wire.ContainerStats()
    stats.attributes.id = "c1"
    stats.writable_layer.timestamp = 3 * SECOND
    stats.writable_layer.used_bytes.value, stats.writable_layer.inodes_used.value = 4096, 2

    async def answer(filter):
        return wire.ListContainerStatsResponse(stats=[stats])

    made.runtime.ListContainerStats = answer
    found = (await made.containers.written())["c1"]
    assert (found.size, found.inodes, found.at) == (4096, 2, 3.0)
    made.runtime.fails["ListContainerStats"] = CallFailed("no", grpc.StatusCode.UNIMPLEMENTED)
    assert await made.containers.written() == {}


async def test_a_log_is_rotated(made, tmp_path):
    log = tmp_path / "0.log"
    log.write_text("old")
    made.runtime.container("c1", log_path=str(log))
    await made.containers.open()
    reopened = []

    async def reopen(container_id):
        reopened.append(log.exists())

    made.runtime.ReopenContainerLog = reopen
    await made.containers.rotate_log("c1", tmp_path / "0.log.1")
    assert (tmp_path / "0.log.1").read_text() == "old"
    assert reopened == [False]
