"""The picture of a runtime's containers, against a runtime of the test's own."""

import asyncio

import grpc
import pytest

from nodewright_agent.cri import wire
from nodewright_agent.remote import records
from nodewright_agent.remote.client import CallFailed
from nodewright_agent.runtime.spec import Phase, Resources


async def test_what_is_there_is_found_and_not_told(made):
    made.runtime.container("c1")
    made.runtime.container("c2")
    made.runtime.ends("c2", 1)
    await made.containers.open()
    record = made.containers.find("c1")
    assert (record.running, record.spec.pod_uid, record.spec.name) == (True, "u1", "main")
    assert record.spec.labels["imageID"] == "img@sha256:1"
    assert made.containers.find("c2").exit.code == 1
    assert [one.id for one in await made.containers.list()] == ["c1", "c2"]
    assert made.told == []


async def test_its_cgroup_is_found_whatever_the_runtime_calls_it(made):
    made.runtime.container("c1")
    await made.containers.open()
    record = made.containers.find("c1")
    assert record.cgroup == "/nw/kubepods/burstable/podu1/crio-c1"
    assert record.state.pid == 41
    assert record.spec.resources == Resources(cpu_shares=512, memory_limit=1 << 20)
    made.runtime.container("c3")
    await made.containers.look()
    with pytest.raises(FileNotFoundError, match="cgroup of container c3"):
        _ = made.containers.find("c3").cgroup


@pytest.mark.parametrize(
    ("code", "reason", "wanted"),
    [
        (0, "Completed", ("c1", 0, False, "")),
        (137, "OOMKilled", ("c1", 137, True, "")),
        (255, "Unknown", ("c1", 255, False, "HostRestarted")),
    ],
)
async def test_an_end_is_told_once(made, code, reason, wanted):
    made.runtime.container("c1")
    await made.containers.open()
    waiting = asyncio.ensure_future(made.containers.wait("c1"))
    made.runtime.ends("c1", code, reason)
    await made.containers.look()
    await made.containers.look()
    assert made.told == [wanted]
    assert (await waiting).finished_at == 9.0


async def test_answers_that_overtake_each_other_raise_nobody_from_the_dead(made):
    made.runtime.container("c1")
    await made.containers.open()
    made.runtime.ends("c1", 0)
    await made.containers.look()
    made.runtime.statuses["c1"].state = wire.CONTAINER_RUNNING
    await made.containers.refresh("c1")
    assert made.containers.find("c1").state.phase is Phase.EXITED


async def test_what_somebody_removed_has_ended(made):
    made.runtime.container("c1")
    await made.containers.open()
    waiting = asyncio.ensure_future(made.containers.wait("c1"))
    await asyncio.sleep(0)
    made.runtime.statuses.clear()
    await made.containers.look()
    assert made.told == [("c1", 137, False, "MonitorLost")]
    assert made.containers.find("c1") is None
    await asyncio.wait([waiting])


async def test_a_runtime_that_is_down_changes_nothing(made):
    made.runtime.container("c1")
    made.runtime.sandbox("s1")
    await made.containers.open()
    made.runtime.fails["ListContainers"] = CallFailed("connection refused", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(CallFailed):
        await made.containers.look()
    assert made.containers.find("c1").running
    assert made.told == []


async def test_one_that_cannot_be_asked_after_hides_no_other(made, monkeypatch):
    made.runtime.container("c1")
    made.runtime.container("c2", log_path="/l")
    asked = made.runtime.ContainerStatus

    async def status(container_id):
        if container_id == "c2":
            raise CallFailed("broken", grpc.StatusCode.UNKNOWN)
        return await asked(container_id)

    monkeypatch.setattr(made.runtime, "ContainerStatus", status)
    await made.containers.open()
    assert made.containers.find("c2").running  # nobody is to start it once more
    made.runtime.ends("c1", 0)
    assert not await made.containers.look()
    assert made.told == [("c1", 0, False, "")]
    monkeypatch.setattr(made.runtime, "ContainerStatus", asked)
    assert await made.containers.look()
    assert made.containers.find("c2").spec.log_path == "/l"
    made.runtime.ends("c2", 4)
    assert await made.containers.look()
    assert made.told[1:] == [("c2", 4, False, "")]


async def test_what_is_gone_when_it_is_asked_after_has_ended(made):
    made.runtime.container("c1")
    made.runtime.container("c2")
    await made.containers.open()
    made.runtime.statuses.clear()
    await made.containers.refresh("c1")
    await made.containers.kill("c2")
    assert made.told == [("c1", 137, False, "MonitorLost"), ("c2", 137, False, "MonitorLost")]


async def test_what_ends_with_its_sandbox_is_told(made):
    made.runtime.sandbox("s1", ready=False)
    made.runtime.container("c1")
    made.runtime.container("c2")
    await made.containers.open()

    async def stop(pod_sandbox_id):
        made.runtime.ends("c1", 143)

    made.runtime.StopPodSandbox = stop
    await made.containers.stop_sandbox(made.containers.newest("u1"))
    assert made.told == [("c1", 143, False, "")]
    await made.containers.remove_sandbox(made.containers.newest("u1"))
    assert made.told[1:] == [("c2", 137, False, "MonitorLost")]
    assert await made.containers.list() == []


async def test_a_sandbox_that_was_removed_meanwhile_does_not_come_back(made):
    made.runtime.sandbox("s1")
    await made.containers.open()
    answer = made.runtime.ListContainers

    async def late(filter):
        await made.containers.remove_sandbox(made.containers.newest("u1"))
        return await answer(filter)

    made.runtime.ListContainers = late
    await made.containers.look()
    assert made.containers.sandboxes == {}


async def test_sandboxes_newest_last(made):
    made.runtime.sandbox("new", attempt=1)
    made.runtime.sandbox("old", ready=False)
    made.runtime.sandbox("s9", uid="u9")
    await made.containers.open()
    assert made.containers.newest("u1").id == "new"
    assert made.told == []
    made.runtime.sandbox("new", ready=False, attempt=1)
    del made.runtime.sandboxes["s9"]
    await made.containers.look()
    assert made.told == [("lost", "u1"), ("lost", "u9")]
    made.runtime.calls.clear()
    async with asyncio.timeout(10):
        while len(made.runtime.calls) < 2:  # noqa: ASYNC110 - what still runs in them is ended
            await asyncio.sleep(0.01)
    assert ("StopPodSandbox", {"pod_sandbox_id": "new"}) in made.runtime.calls
    assert made.containers.newest("u9") is None


def test_who_a_process_is_may_not_be_told():
    status = wire.ContainerStatus(id="c")
    assert records.state_of(status).uid == -1
    status.user.linux.uid = 7
    assert records.state_of(status).uid == 7


async def test_a_cgroup_that_vanishes_meanwhile_is_not_known(made, monkeypatch):
    def gone(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(made.containers.cgroups, "limits", gone)
    made.runtime.container("c1")
    await made.containers.open()
    assert (made.containers.find("c1").running, made.containers.find("c1").place) == (True, "")
