from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nodewright.controlplane import configs, files, layout, state
from nodewright.controlplane.cluster import LocalCluster, mounts_below, remove_data
from nodewright.controlplane.errors import ControlPlaneError, PreconditionError, UsageError
from nodewright.controlplane.layout import Layout


def test_created_once_and_kept(tmp_path: Path) -> None:
    first = LocalCluster.ensure(Layout(tmp_path, "a"))
    again = LocalCluster.ensure(Layout(tmp_path, "a"))
    assert first.state == again.state
    assert first.state.nodes == 0
    assert first.server == f"https://127.0.0.1:{first.state.ports.apiserver}"


def test_clusters_side_by_side_share_no_address_and_no_port(tmp_path: Path) -> None:
    made = [LocalCluster.ensure(Layout(tmp_path, name)).state for name in ("a", "b", "c")]
    assert len({one.slot for one in made}) == 3
    assert len({one.pod_cidr for one in made}) == 3
    ports = [port for one in made for port in (one.ports.apiserver, one.ports.etcd_client, one.ports.etcd_peer)]
    assert all(port in state.PORT_RANGE for port in ports)


def test_the_number_of_nodes_moves_the_api_server(tmp_path: Path) -> None:
    where = Layout(tmp_path, "a")
    before = LocalCluster.ensure(where)
    after = LocalCluster.ensure(where, nodes=2)
    assert after.state.address == after.state.ranges.gateway != before.state.address
    assert after.state.ports == before.state.ports
    assert LocalCluster.ensure(where).state.nodes == 2  # left out: kept


@pytest.mark.parametrize(
    "content", ["", "{", "null", "[]", '{"name":"a"}', '{"name":"a","slot":"x"}', "\ufeff{}", "x" * 100_000]
)
def test_a_damaged_file_is_named_and_not_overwritten(tmp_path: Path, content: str) -> None:
    where = Layout(tmp_path, "a")
    where.dir.mkdir(parents=True)
    where.state_file.write_text(content)
    with pytest.raises(ControlPlaneError) as error:
        LocalCluster.ensure(where)
    assert str(where.state_file) in error.value.message
    assert error.value.hint
    assert where.state_file.read_text() == content


def test_the_file_of_another_cluster_is_refused(tmp_path: Path) -> None:
    LocalCluster.ensure(Layout(tmp_path, "a"))
    other = Layout(tmp_path, "b")
    other.dir.mkdir()
    other.state_file.write_bytes(Layout(tmp_path, "a").state_file.read_bytes())
    with pytest.raises(ControlPlaneError, match="does not describe the cluster b"):
        LocalCluster.load(other)


def test_another_clusters_damaged_file_does_not_matter(tmp_path: Path) -> None:
    broken = Layout(tmp_path, "broken")
    broken.dir.mkdir(parents=True)
    broken.state_file.write_text("{")
    assert LocalCluster.ensure(Layout(tmp_path, "a")).state.slot >= 0


def test_load_needs_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="there is no cluster a"):
        LocalCluster.load(Layout(tmp_path, "a"))


def test_names_cannot_leave_the_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Layout(tmp_path, "../x")


def test_a_port_in_use_is_seen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not state.port_is_free("127.0.0.1", port)
    assert state.port_is_free("127.0.0.1", port)
    assert state.port_is_free("10.180.77.1", port)  # an address that will come with the bridge


def test_ports_differ() -> None:
    ports = state.choose_ports()
    assert len({getattr(ports, name) for name in ports.__struct_fields__}) == len(ports.__struct_fields__)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"NODEWRIGHT_STATE_DIR": "/x/y"}, "/x/y"),
        ({"XDG_STATE_HOME": "/h/state"}, "/h/state/nodewright"),
        ({"HOME": "/h"}, "/h/.local/state/nodewright"),
    ],
)
def test_state_root(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str) -> None:
    for name in ("NODEWRIGHT_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert str(layout.state_root()) == expected
    assert layout.state_root(Path("/explicit")) == Path("/explicit")


def test_root_keeps_state_in_var_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODEWRIGHT_STATE_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert layout.state_root() == Path("/var/lib/nodewright")


def test_the_encryption_key_is_made_once_and_never_replaced(tmp_path: Path) -> None:
    cluster = LocalCluster.ensure(Layout(tmp_path, "a"))
    cluster.prepare()
    path = configs.encryption_file(cluster.layout)
    key = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    cluster.prepare()
    assert path.read_bytes() == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(key[: len(key) // 2])
    with pytest.raises(ControlPlaneError, match="damaged"):
        cluster.prepare()
    assert path.read_bytes() == key[: len(key) // 2]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    files.write_atomic(path, "old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PreconditionError, match="no space left") as error:
        files.write_atomic(path, "new")
    assert error.value.hint
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_purge_removes_everything_and_can_be_repeated(tmp_path: Path) -> None:
    cluster = LocalCluster.ensure(Layout(tmp_path, "a"))
    cluster.prepare()
    remove_data(cluster.layout)
    assert not cluster.dir.exists()
    remove_data(cluster.layout)


def test_purge_refuses_while_something_runs(tmp_path: Path) -> None:
    cluster = LocalCluster.ensure(Layout(tmp_path, "a"))
    cluster.component("etcd").start(["sleep", "60"])
    try:
        with pytest.raises(ControlPlaneError, match="etcd still runs"):
            remove_data(cluster.layout)
        assert cluster.layout.state_file.exists()
    finally:
        cluster.stop()


def test_mounts_below() -> None:
    assert "/proc" in mounts_below(Path("/"))
    assert mounts_below(Path("/nonexistent")) == []
