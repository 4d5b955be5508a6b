import os
import stat
import subprocess
from pathlib import Path

import pytest

from nodewright_agent import main
from nodewright_agent.config import AgentConfig, ConfigError
from nodewright_agent.cri import server
from nodewright_agent.cri.settings import Settings
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.images import fsutil, records
from nodewright_agent.runtime.images.fsutil import held_alone, locked, remove_tree, write_atomically
from nodewright_agent.runtime.images.records import Layout, NameRecord
from nodewright_agent.runtime.images.usage import layers_in_options


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "store")
    made.make()
    return made


def test_only_the_owner_may_enter_the_store(layout):
    assert stat.S_IMODE(layout.root.stat().st_mode) == 0o700


def test_records_round_trip(layout):
    path = layout.name_record("a/b:1")
    records.write(path, NameRecord("a/b:1", "sha256:x"))
    assert records.read(layout, path, NameRecord) == NameRecord("a/b:1", "sha256:x")
    assert list(records.read_all(layout, layout.name_records, NameRecord)) == [NameRecord("a/b:1", "sha256:x")]
    assert records.read(layout, layout.name_record("other"), NameRecord) is None


@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: b"", lambda d: d.replace(b"sha256:x", b"sha256:y"),
                                   lambda d: b"\0" * len(d)])  # fmt: skip
def test_corrupt_records_go_to_quarantine_and_are_said(layout, caplog, spoil):
    path = layout.name_record("a")
    records.write(path, NameRecord("a", "sha256:x"))
    path.write_bytes(spoil(path.read_bytes()))
    assert records.read(layout, path, NameRecord) is None
    assert not path.exists()
    assert len(list(layout.quarantine.iterdir())) == 1
    assert "corrupt" in caplog.text


def test_atomic_write_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomically(path, b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_remove_tree_copes_with_depth_links_and_odd_names(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    os.symlink(outside, tree / "link")
    os.symlink("/", tree / "root")
    os.mkfifo(tree / "fifo")
    (tree / os.fsdecode(b"\xff\n")).mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):  # far beyond PATH_MAX and the recursion limit
        os.mkdir("d" * 10, dir_fd=here)
        (deeper, _) = os.open("d" * 10, os.O_RDONLY, dir_fd=here), os.close(here)
        here = deeper
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()
    remove_tree(tree)
    os.symlink(outside, tmp_path / "just-a-link")
    remove_tree(tmp_path / "just-a-link")
    assert (outside / "kept").exists()


def test_locks_exclude(tmp_path):
    path = tmp_path / "l"
    with (
        locked(path, shared=True),
        locked(path, shared=True, blocking=False),
        pytest.raises(BlockingIOError),
        locked(path, blocking=False),
    ):
        pass
    with locked(tmp_path / "l", blocking=False):
        pass


def test_a_sole_holder(tmp_path):
    path = tmp_path / "l"
    with (
        held_alone(path, ValueError("one is at work")),
        pytest.raises(ValueError, match="one is at work"),
        held_alone(path, ValueError("one is at work")),
    ):
        pytest.fail("there were two")
    with pytest.raises(BlockingIOError, match="of the work itself"), held_alone(path, ValueError()):
        raise BlockingIOError("of the work itself")
    with held_alone(path, ValueError("the one before has let go")):
        pass


def test_a_killed_holders_child_may_let_go_a_moment_later(tmp_path):
    path = tmp_path / "l"
    with locked(path) as file:
        child = subprocess.Popen(["sleep", "0.4"], pass_fds=[file.fileno()])
    with child, held_alone(path, ValueError("one is at work")):
        pass


async def test_a_second_agent_and_a_second_cri_server_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fsutil, "LETTING_GO", 0.1)
    config = AgentConfig(
        node_name="n", state_dir=str(tmp_path / "s"), run_dir=str(tmp_path / "r"), log_dir=str(tmp_path)
    )
    settings = Settings(socket=tmp_path / "socket", root=tmp_path / "s", run_dir=Path("/run/none"))
    (tmp_path / "s").mkdir()
    with held_alone(tmp_path / "s/agent.lock", ValueError()), held_alone(tmp_path / "s/lock", ValueError()):
        with pytest.raises(ConfigError, match=f"another agent is running with state_dir {tmp_path}/s"):
            await main.run(config)
        with pytest.raises(RuntimeUnavailable, match=f"another CRI server uses {tmp_path}/s"):
            await server.serve(settings)
    assert not settings.socket.exists()


A, B, C = "a" * 24, "b" * 24, "c" * 24


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (f"rw,lowerdir=/var/lib/x/l/{A}:/var/lib/x/l/{B},upperdir=/u,workdir=/w", {A, B}),
        (f"ro,lowerdir=l/{A}:l/{B}", {A, B}),
        (f"rw,lowerdir+=/s/l/{A},lowerdir+=/s/l/{C},upperdir=/u", {A, C}),
        ("rw,lowerdir=/s/l/short,upperdir=/u", set()),
        (f"rw,lowerdir=/s/l/{A}0,upperdir=/u", set()),
    ],
)
def test_layers_in_mount_options(options, found):
    line = f"52 30 0:44 / /run/x/rootfs rw,relatime - overlay overlay {options}"
    other = f"60 30 8:1 /s/l/{C} /mnt rw - ext4 /dev/vda rw"
    assert layers_in_options(f"{other}\n{line}\n") == found
