"""What a starting agent makes of records and containers."""

import msgspec

from nodewright.kube.objects import PodIP
from nodewright_agent.pods.model import Backoff, Instance, PodState, Step, StepState
from nodewright_agent.pods.records import PodRecord, Records
from nodewright_agent.pods.recovery import Found, recover
from nodewright_agent.runtime.spec import ContainerRecord, ContainerSpec, ContainerState, ExitInfo, Phase
from unit.pods.pod_doubles import make_pod


def container(cid="c1", uid="uid-1", name="a", attempt=0, ended=None):
    state = ContainerState(phase=Phase.EXITED if ended else Phase.RUNNING, started_at=10.0, exit=ended)
    spec = ContainerSpec(
        id=cid, pod_uid=uid, pod_name="pod", pod_namespace="ns", name=name, attempt=attempt,
        lowers=["/l"], argv=["x"], log_path="/log", cgroup_parent="/c", labels={"image": "img", "imageID": "id"},
    )  # fmt: skip
    return ContainerRecord(spec=spec, state=state)


def record(*runs, **more):
    return PodRecord(pod=make_pod(), start_time=5.0, ips=("10.0.0.1",), runs=list(runs), **more)


def found(records=None, containers=(), sandboxes=("uid-1",), traces=(), files=("uid-1",)):
    return Found(records or {}, containers, frozenset(sandboxes), frozenset(files), frozenset(traces))


def test_running_container_is_taken_up():
    run = Instance("c1", "a", 0, state="running", started_at=10.0, image="img")
    backoffs = {"a": Backoff(20, 1)}
    pod, state = recover(found({"uid-1": record(run, backoffs=backoffs)}, [container()])).restored["uid-1"]
    assert pod.metadata.name == "pod"
    assert state.sandbox.ready
    assert state.volumes == Step()
    assert state.ips == ("10.0.0.1",)
    assert state.backoffs == backoffs
    assert [(r.id, r.state, r.stale) for r in state.all_instances()] == [("c1", "running", False)]


def test_container_newer_than_the_record_is_taken_up():
    _, state = recover(found({"uid-1": record()}, [container(attempt=2)])).restored["uid-1"]
    latest = state.latest("a")
    assert latest is not None
    assert (latest.id, latest.attempt, latest.image, latest.image_id) == ("c1", 2, "img", "id")


def test_an_end_while_away_is_known():
    run = Instance("c1", "a", 0, state="running", started_at=10.0)
    end = ExitInfo(code=137, oom_killed=True, finished_at=20.0)
    _, state = recover(found({"uid-1": record(run)}, [container(ended=end)])).restored["uid-1"]
    latest = state.latest("a")
    assert latest is not None
    assert (latest.state, latest.exit_code, latest.reason, latest.finished_at) == ("exited", 137, "OOMKilled", 20.0)


def test_container_that_nobody_has_any_more_is_not_taken_for_done():
    run = Instance("c1", "a", 0, state="running", started_at=10.0)
    _, state = recover(found({"uid-1": record(run)})).restored["uid-1"]
    latest = state.latest("a")
    assert latest is not None
    assert (latest.state, latest.exit_code, latest.reason) == ("exited", 137, "ContainerStatusUnknown")


def test_container_that_was_never_let_go_counts_as_if_it_had_not_been():
    first = Instance("c0", "a", 0, state="exited", exit_code=3)
    kept = record(first, Instance("c1", "a", 1, state="created"))
    ended = container("c0", ended=ExitInfo(code=3))
    result = recover(found({"uid-1": kept}, [ended]))
    _, state = result.restored["uid-1"]
    assert [(run.id, run.exit_code) for run in state.all_instances()] == [("c0", 3)]
    assert result.surplus == []


def test_runs_that_were_about_to_be_removed_are_surplus():
    ended = [container(f"c{n}", attempt=n, ended=ExitInfo(code=1)) for n in range(3)]
    result = recover(found({"uid-1": record()}, [*ended, container("c3", attempt=3)]))
    _, state = result.restored["uid-1"]
    assert [run.id for run in state.all_instances()] == ["c2", "c3"]
    assert result.surplus == ["c0", "c1"]


def test_after_a_reboot_everything_starts_anew():
    run = Instance("c1", "a", 0, state="running", started_at=10.0)
    end = ExitInfo(code=255, reason="HostRestarted", finished_at=20.0)
    _, state = recover(found({"uid-1": record(run)}, [container(ended=end)], sandboxes=())).restored["uid-1"]
    assert state.sandbox.state is StepState.NONE
    assert all(run.stale for run in state.all_instances())


def test_half_made_sandbox_is_made_to_the_end():
    _, state = recover(found({"uid-1": record()}, files=())).restored["uid-1"]
    assert state.sandbox.state is StepState.NONE


def test_sandbox_without_a_known_address_is_looked_at_again_while_its_container_goes_on():
    kept = PodRecord(pod=make_pod())
    _, state = recover(found({"uid-1": kept}, [container()])).restored["uid-1"]
    assert state.sandbox.state is StepState.NONE
    assert [(run.state, run.stale) for run in state.all_instances()] == [("running", False)]


def test_sandbox_of_a_host_network_pod_needs_no_address():
    pod = make_pod()
    pod.spec.host_network = True
    _, state = recover(found({"uid-1": PodRecord(pod=pod)})).restored["uid-1"]
    assert state.sandbox.ready


def test_address_that_only_the_api_was_told_is_taken_up():
    pod = make_pod()
    pod.status.pod_ips = [PodIP(ip="10.0.0.9")]
    _, state = recover(found({"uid-1": PodRecord(pod=pod)}, [container()])).restored["uid-1"]
    assert (state.ips, state.sandbox.ready) == (("10.0.0.9",), True)


def test_what_runs_without_a_record_gets_its_address_again():
    _, state = recover(found({}, [container()], traces=("uid-1",))).orphans["uid-1"]
    assert state.sandbox.state is StepState.NONE
    assert [(run.state, run.stale) for run in state.all_instances()] == [("running", False)]


def test_leftovers_wait_for_the_api():
    result = recover(found({}, [container(uid="lost")], sandboxes=(), traces=("lost", "half")))
    assert not result.restored
    assert set(result.orphans) == {"lost", "half"}
    pod, state = result.orphans["lost"]
    assert (pod.metadata.namespace, pod.metadata.name) == ("ns", "pod")
    assert pod.metadata.deletion_timestamp is not None
    assert [one.name for one in pod.spec.containers] == ["a"]
    assert state.latest("a") is not None


def test_probe_results_survive():
    pod = make_pod({"name": "a", "readinessProbe": {"exec": {"command": ["x"]}}})
    status = {"name": "a", "ready": True, "started": True, "restartCount": 0, "image": "", "imageID": "",
              "containerID": "nodewright://c1", "state": {"running": {}}}  # fmt: skip
    pod.status = msgspec.convert({"containerStatuses": [status]}, type(pod.status))
    kept = PodRecord(pod=pod, runs=[Instance("c1", "a", 0, state="running")])
    _, state = recover(found({"uid-1": kept}, [container()])).restored["uid-1"]
    latest = state.latest("a")
    assert latest is not None
    assert latest.readiness is True


def test_records_survive_the_disk_and_damage(tmp_path):
    records = Records(tmp_path / "pods")
    state = PodState(start_time=1.0, ips=("10.0.0.1",), backoffs={"a": Backoff(10, 2)}, finished=True)
    state.add(Instance("c1", "a", 1, state="exited", exit_code=3, finished_at=9.0))
    state.teardown = Step(StepState.READY)
    records.save(make_pod(), state)
    torn = tmp_path / "pods" / "uid-2" / "pod.json"
    torn.parent.mkdir()
    torn.write_text('{"pod": {"metad')
    assert set(records.load()) == {"uid-1"}
    loaded = records.load()["uid-1"].state()
    assert (loaded.finished, loaded.teardown.ready, loaded.ips) == (True, True, ("10.0.0.1",))
    assert [run.exit_code for run in loaded.all_instances()] == [3]
    assert records.uids() == {"uid-1", "uid-2"}
    records.remove("uid-1")
    assert records.uids() == {"uid-2"}
