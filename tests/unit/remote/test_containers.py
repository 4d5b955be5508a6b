"""The picture of a runtime's containers, against a runtime of the test's own."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from nodewright_agent.cri import wire
from nodewright_agent.remote import config, labels, records
from nodewright_agent.remote.client import CallFailed, Missing
from nodewright_agent.remote.containers import RemoteContainers
from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.errors import ContainerNotFound, ContainerStateError, ExecError, RunContainerError
from nodewright_agent.runtime.spec import Phase, Resources

SECOND = 10**9
ORDER = wire.ContainerConfig(metadata=wire.ContainerMetadata(name="main", attempt=0), labels={labels.POD_UID: "u1"})


class Cgroups:
    """Hierarchies in which each container has what the test says."""

    def __init__(self):
        self.below = {}

    def exists(self, path):
        return path in self.below

    def children(self, path):
        return self.below[path]

    def pids(self, path):
        return {42, 41}

    def remove(self, path):
        self.below.pop(path, None)

    def limits(self, path):
        return CgroupLimits(cpu_shares=512, memory=1 << 20)


class Runtime:
    """Answers calls from what the test puts here, and keeps them."""

    def __init__(self):
        self.statuses, self.sandboxes, self.calls, self.fails, self.within = {}, {}, [], {}, "s1"

    def container(self, cid, state="CONTAINER_RUNNING", sandbox="s1", **fields):
        known = {labels.POD_UID: "u1", labels.POD_NAME: "web", labels.CONTAINER_NAME: "main", labels.NODE: "n"}
        self.statuses[cid] = wire.ContainerStatus(
            id=cid, state=getattr(wire, state), labels=known, metadata=wire.ContainerMetadata(name="main"),
            created_at=SECOND, started_at=2 * SECOND, **fields,
        )  # fmt: skip
        self.statuses[cid].annotations[labels.IMAGE_ID] = "img@sha256:1"

    def sandbox(self, sid, uid="u1", ready=True, attempt=0):
        self.sandboxes[sid] = wire.PodSandbox(
            id=sid, labels={labels.POD_UID: uid}, state=wire.SANDBOX_READY if ready else wire.SANDBOX_NOTREADY,
            metadata=wire.PodSandboxMetadata(uid=uid, attempt=attempt),
        )  # fmt: skip

    async def runtime(self, method, *, deadline=0.0, **fields):
        self.calls.append((method, fields))
        if method in self.fails:
            raise self.fails[method]
        return await getattr(self, method)(**fields)

    async def ListPodSandbox(self, filter):
        assert filter == {"label_selector": {labels.NODE: "n"}}
        return wire.ListPodSandboxResponse(items=list(self.sandboxes.values()))

    async def ListContainers(self, filter):
        found = [wire.Container(id=one.id, state=one.state, pod_sandbox_id=self.within, labels=one.labels)
                 for one in self.statuses.values()]  # fmt: skip
        return wire.ListContainersResponse(containers=found)

    async def ContainerStatus(self, container_id):
        if container_id not in self.statuses:
            raise Missing("no such container", grpc.StatusCode.NOT_FOUND)
        return wire.ContainerStatusResponse(status=self.statuses[container_id])

    async def CreateContainer(self, pod_sandbox_id, config, sandbox_config):
        self.container("new", "CONTAINER_CREATED", pod_sandbox_id)
        return wire.CreateContainerResponse(container_id="new")

    async def StartContainer(self, container_id):
        self.statuses[container_id].state = wire.CONTAINER_RUNNING

    async def StopContainer(self, container_id, timeout):
        if container_id not in self.statuses:
            raise Missing("no such container", grpc.StatusCode.NOT_FOUND)
        self.ends(container_id, 137 if timeout == 0 else 0)

    async def StopPodSandbox(self, pod_sandbox_id):
        return None

    async def RemovePodSandbox(self, pod_sandbox_id):
        self.sandboxes.pop(pod_sandbox_id, None)

    async def RemoveContainer(self, container_id):
        self.statuses.pop(container_id, None)

    async def ExecSync(self, container_id, cmd, timeout):
        return wire.ExecSyncResponse(stdout=b"out", stderr=b"err", exit_code=3)

    async def UpdateContainerResources(self, container_id, linux):
        return None

    def ends(self, cid, code, reason="", at=9):
        status = self.statuses[cid]
        status.state, status.exit_code, status.reason, status.finished_at = (
            wire.CONTAINER_EXITED, code, reason or ("Completed" if code == 0 else "Error"), at * SECOND,
        )  # fmt: skip


@pytest.fixture
def made():
    runtime, cgroups = Runtime(), Cgroups()
    cgroups.below["/nw/kubepods/burstable/podu1"] = {"crio-c1", "crio-new.scope"}
    containers = RemoteContainers(runtime, cgroups, config.Host(), "n", "nw", Path("/layers"))
    told = []
    containers.on_exit = lambda cid, info: told.append((cid, info.code, info.oom_killed, info.reason))
    containers.on_sandbox_lost = lambda uid: told.append(("lost", uid))
    return SimpleNamespace(runtime=runtime, containers=containers, told=told)


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


async def test_a_container_that_was_never_started_goes(made):
    made.runtime.container("c1", "CONTAINER_CREATED")
    await made.containers.open()
    assert made.containers.find("c1") is None
    assert made.runtime.statuses == {}


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


async def test_a_cgroup_that_vanishes_meanwhile_is_not_known(made, monkeypatch):
    def gone(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(made.containers.cgroups, "limits", gone)
    made.runtime.container("c1")
    await made.containers.open()
    assert (made.containers.find("c1").running, made.containers.find("c1").place) == (True, "")
