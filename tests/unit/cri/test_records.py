"""Records of sandboxes and containers: on disk, by their ids, and as CRI shows them."""

from pathlib import Path

import pytest

from nodewright_agent.cri import sandboxfiles, status, wire
from nodewright_agent.cri.errors import Invalid, NotFound
from nodewright_agent.cri.records import Container, Records, Sandbox
from nodewright_agent.cri.settings import Settings, socket_path
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.spec import ContainerRecord, ContainerSpec, ContainerState, ExitInfo, Phase


def sandbox(sid="aab1"):
    request = wire.PodSandboxConfig(labels={"app": "web"}).SerializeToString()
    return Sandbox(id=sid, request=request, handler="", created_at=5, hostname="h", cgroup="/c", own_cgroup=True)


def spec(cid="c1"):
    return ContainerSpec(
        id=cid,
        pod_uid="aab1",
        pod_name="p",
        pod_namespace="n",
        name="c",
        lowers=["/l"],
        argv=["x"],
        log_path="/logs/0.log",
        cgroup_parent="/c",
    )


def container(cid="c1", **fields):
    request = wire.ContainerConfig(labels={"a": "b"}, image=wire.ImageSpec(image="img")).SerializeToString()
    return Container(id=cid, sandbox="aab1", request=request, order=spec(cid), image="sha256:1", created_at=7, **fields)


def test_records_come_back(tmp_path):
    first = Records(tmp_path)
    first.load()
    first.keep(sandbox())
    first.keep(container())
    again = Records(tmp_path)
    again.load()
    assert again.sandbox("aab1").config.labels == {"app": "web"}
    assert again.container("c1").order == spec()
    again.drop(again.container("c1"))
    again.drop(again.sandbox("aab1"))
    last = Records(tmp_path)
    last.load()
    assert (last.sandboxes, last.containers) == ({}, {})


def test_half_written_records_are_removed(tmp_path):
    records = Records(tmp_path)
    records.load()
    records.directory("aab1").mkdir()
    (tmp_path / "containers" / ".c1.json.tmp").write_text("{")
    records.load()
    assert not records.directory("aab1").exists()
    assert list((tmp_path / "containers").iterdir()) == []


@pytest.mark.parametrize("text", ["{", '{"id": 1}'])
@pytest.mark.parametrize("name", ["sandboxes/aab1/record.json", "containers/c1.json"])
def test_a_record_that_cannot_be_read_is_kept(tmp_path, name, text):
    """What it is about may still run."""
    records = Records(tmp_path)
    records.load()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(RuntimeUnavailable, match=f"{name} cannot be read"):
        records.load()
    assert (tmp_path / name).exists()


def test_a_record_that_the_kernel_does_not_give(tmp_path):
    records = Records(tmp_path)
    records.load()
    (tmp_path / "containers" / "c1.json").mkdir()
    with pytest.raises(RuntimeUnavailable, match="Is a directory"):
        records.load()


def test_records_that_the_host_did_not_write_in_time(tmp_path):
    records = Records(tmp_path)
    records.load()
    (tmp_path / "containers" / "c1.json").touch()
    records.directory("aab1").touch()
    records.load()
    assert list((tmp_path / "containers").iterdir()) == list((tmp_path / "sandboxes").iterdir()) == []


def test_what_could_not_be_written_is_not_known(tmp_path):
    records = Records(tmp_path)
    records.load()
    (tmp_path / "containers" / "c1.json").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        records.keep(container())
    assert records.containers == {}


def test_ids_by_their_beginning(tmp_path):
    records = Records(tmp_path)
    records.load()
    for sid in ("aab1", "aac2"):
        records.keep(sandbox(sid))
    assert records.sandbox("aab").id == "aab1"
    with pytest.raises(Invalid, match="is not unique"):
        records.sandbox("aa")
    with pytest.raises(NotFound, match='pod sandbox "b" not found'):
        records.sandbox("b")
    with pytest.raises(Invalid, match="must not be empty"):
        records.container("")


def run(phase, **state):
    return ContainerRecord(spec=spec(), state=ContainerState(phase=phase, **state))


@pytest.mark.parametrize(
    ("record", "known", "state"),
    [
        ({}, None, wire.CONTAINER_CREATED),
        ({"begun": True}, None, wire.CONTAINER_EXITED),
        ({"failed_at": 9}, None, wire.CONTAINER_EXITED),
        ({"begun": True}, run(Phase.RUNNING), wire.CONTAINER_RUNNING),
        ({"begun": True}, run(Phase.EXITED), wire.CONTAINER_EXITED),
        ({}, run(Phase.CREATED), wire.CONTAINER_CREATED),
    ],
)
def test_states(record, known, state):
    assert status.state(container(**record), known) == state


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        (ExitInfo(code=0, finished_at=2.0), 0, "Completed"),
        (ExitInfo(code=3, finished_at=2.0), 3, "Error"),
        (ExitInfo(code=137, oom_killed=True, finished_at=2.0), 137, "OOMKilled"),
        (ExitInfo(code=255, reason="HostRestarted", finished_at=2.0), 255, "HostRestarted"),
    ],
)
def test_ends(end, code, reason):
    shown = status.container(container(begun=True), run(Phase.EXITED, started_at=1.5, exit=end), None)
    assert (shown.exit_code, shown.reason, shown.started_at, shown.finished_at) == (code, reason, 15 * 10**8, 2 * 10**9)


def test_a_start_that_failed():
    shown = status.container(container(failed_at=9, failure="no such command"), None, None)
    assert (shown.exit_code, shown.reason, shown.message) == (128, "StartError", "no such command")
    assert (shown.state, shown.finished_at) == (wire.CONTAINER_EXITED, 9)


def test_the_resolver_s_file():
    dns = wire.DNSConfig(servers=["10.0.0.10", "8.8.8.8"], searches=["a", "b"], options=["ndots:5"])
    assert sandboxfiles.resolv_conf(dns) == ("search a b\nnameserver 10.0.0.10\nnameserver 8.8.8.8\noptions ndots:5\n")
    assert sandboxfiles.resolv_conf(wire.DNSConfig()) == ""


def test_settings():
    settings = Settings(socket=socket_path("unix:///run/x.sock"), handlers={"kata": "/usr/bin/kata"})
    assert str(settings.socket) == "/run/x.sock"
    assert (settings.program(""), settings.program("kata")) == ("", "/usr/bin/kata")
    with pytest.raises(Invalid, match='no runtime for "none" is configured'):
        settings.program("none")
    with pytest.raises(ValueError, match="unix:///PATH"):
        socket_path("tcp://1.2.3.4:5")


def test_a_run_directory_that_is_too_long():
    with pytest.raises(ValueError, match="longer than 48 characters"):
        Settings(socket=socket_path("/run/x.sock"), run_dir=Path("/run") / ("x" * 44))
