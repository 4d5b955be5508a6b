"""Installing conmon and runc on a host: whole or not at all, once, and without taking what is in use."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nodewright_agent.runtime import hosttools
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.hostspace import HostSpace


def folder(path: Path, prefix: Path, text: str = "one") -> Path:
    for name in ("bin/conmon", "bin/runc", "lib/libc.so"):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name} {text}")
        file.chmod(0o755)
    (path / "PREFIX").write_text(f"{prefix}\n")
    return path


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return tmp_path / "host"


def test_installs_once(tmp_path, parent):
    source = folder(tmp_path / "image", parent / "aaaa")
    assert hosttools.install(source) == parent / "aaaa"
    assert (parent / "aaaa/bin/runc").read_text() == "bin/runc one"
    assert os.access(parent / "aaaa/bin/conmon", os.X_OK)
    before = os.stat(parent / "aaaa").st_ino
    assert hosttools.install(source) == parent / "aaaa"
    assert os.stat(parent / "aaaa").st_ino == before


@pytest.mark.parametrize("damage", ["changed", "missing", "not executable"])
def test_a_damaged_installation_is_replaced(tmp_path, parent, damage):
    source = folder(tmp_path / "image", parent / "aaaa")
    runc = hosttools.install(source) / "bin/runc"
    if damage == "changed":
        runc.write_text("bin/runc two")
    elif damage == "missing":
        runc.unlink()
    else:
        runc.chmod(0o644)
    assert hosttools.install(source) == parent / "aaaa"
    assert runc.read_text() == "bin/runc one"
    assert os.access(runc, os.X_OK)
    (left,) = [entry for entry in parent.iterdir() if entry.name != "aaaa"]
    assert hosttools.remove_others(parent / "aaaa") == [left]


def test_a_killed_installation_does_not_matter(tmp_path, parent):
    source = folder(tmp_path / "image", parent / "aaaa")
    (parent / ".new-aaaa/bin").mkdir(parents=True)
    (parent / ".new-aaaa/bin/runc").write_text("half")
    hosttools.install(source)
    assert [entry.name for entry in parent.iterdir()] == ["aaaa"]


def test_older_ones_go_unless_a_process_runs_them(tmp_path, parent):
    old = hosttools.install(folder(tmp_path / "1", parent / "aaaa", "old"))
    used = hosttools.install(folder(tmp_path / "2", parent / "bbbb", "used"))
    new = hosttools.install(folder(tmp_path / "3", parent / "cccc", "new"))
    (parent / "somebody's").mkdir()
    shutil.copy("/bin/sleep", used / "bin/conmon")
    monitor = subprocess.Popen([used / "bin/conmon", "60"])
    try:
        assert hosttools.remove_others(new) == [old]
        assert used.exists()
    finally:
        monitor.kill()
        monitor.wait()
    assert hosttools.remove_others(new) == [used]
    assert sorted(entry.name for entry in parent.iterdir()) == ["cccc", "somebody's"]


@pytest.mark.parametrize("text", ["", "relative/x/y/z", "/var/../etc/x", "/usr"])
def test_a_prefix_that_is_no_directory_of_ours(tmp_path, text):
    folder(tmp_path / "image", Path("/nowhere"))
    (tmp_path / "image/PREFIX").write_text(text)
    with pytest.raises(RuntimeUnavailable, match="no directory of ours"):
        hosttools.install(tmp_path / "image")


def test_a_folder_that_lacks_something(tmp_path, parent):
    with pytest.raises(RuntimeUnavailable, match="No such file or directory: PREFIX"):
        hosttools.install(tmp_path)
    source = folder(tmp_path / "image", parent / "aaaa")
    (source / "bin/runc").unlink()
    with pytest.raises(RuntimeUnavailable, match="lacks bin/runc"):
        hosttools.install(source)


def test_programs_as_configured_without_host_tools(tmp_path, parent):
    assert hosttools.prepare(HostSpace(), "", "runc", "/x/conmon") == ("runc", "/x/conmon")
    source = folder(tmp_path / "image", parent / "aaaa")
    runc, conmon = hosttools.prepare(HostSpace(), str(source), "runc", "/x/conmon")
    assert (runc, conmon) == (f"{parent}/aaaa/bin/runc", f"{parent}/aaaa/bin/conmon")
