"""`nodewright image` as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

from support.image_makers import BASE, TOP, docker_files, image, oci_files, write_archive

pytestmark = pytest.mark.needs_root


@pytest.fixture
def nodewright(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "NO_COLOR": "1"}

    def run(*arguments, code=0):
        command = [sys.executable, "-m", "nodewright.cli.main", "image", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_the_whole_round(nodewright, tmp_path, registry):
    root = ("--root", tmp_path / "store")
    one, two = image(BASE), image(BASE, TOP)
    first = write_archive(tmp_path / "a.tar", oci_files((one, "localhost/a:1")))
    second = write_archive(tmp_path / "b.tar", docker_files((two, ["localhost/b:1", "localhost/b:2"])))
    assert "localhost/b:2" in nodewright("load", first, second, *root)
    listed = json.loads(nodewright("list", "-o", "json", *root))
    assert [entry["names"] for entry in listed] == [["localhost/a:1"], ["localhost/b:1", "localhost/b:2"]]
    assert one.image_id.partition(":")[2][:12] in nodewright("list", *root)
    ref = registry.push(one, "cli", "1")
    assert ref in nodewright("pull", ref, *root)
    assert "removed localhost/b:1" in nodewright("rm", "localhost/b:1", "localhost/b:2", *root)
    assert [entry["id"] for entry in json.loads(nodewright("list", "-o", "json", *root))] == [one.image_id]


def test_errors_are_one_line_with_an_exit_code(nodewright, tmp_path):
    root = ("--root", tmp_path / "store")
    (tmp_path / "bad.tar").write_bytes(b"bad")
    assert f"error: {tmp_path}/bad.tar: " in nodewright("load", tmp_path / "bad.tar", *root, code=1)
    assert "error: " in nodewright("load", tmp_path / "absent.tar", *root, code=1)
    assert "invalid reference format" in nodewright("pull", "a//b", *root, code=2)
    assert "not in the store" in nodewright("rm", "nothing", *root, code=1)
    assert "there is no image store" in nodewright("list", "--root", tmp_path / "nowhere", code=3)
    assert "there is no cluster none below" in nodewright("list", "--name", "none", "--state-dir", tmp_path, code=3)
    (tmp_path / "auth").write_text("{")
    assert "not valid JSON" in nodewright("pull", "a", "--auth-file", tmp_path / "auth", *root, code=2)


def test_demo(nodewright, tmp_path):
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF static enough")
    nodewright("demo", tmp_path / "a.tar", "--busybox", busybox)
    nodewright("demo", tmp_path / "b.tar", "--busybox", busybox)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    loaded = nodewright("load", tmp_path / "a.tar", "--root", tmp_path / "store")
    assert "localhost/nodewright-demo:1" in loaded
    nowhere = tmp_path / "none" / "a.tar"
    message = nodewright("demo", nowhere, "--busybox", busybox, code=1)
    assert message.strip() == f"error: cannot write {nowhere}: No such file or directory"
    absent = tmp_path / "absent"
    assert f"cannot read {absent}: No such file" in nodewright("demo", tmp_path / "a.tar", "--busybox", absent, code=1)
    busybox.write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    assert "busybox-static" in nodewright("demo", tmp_path / "c.tar", "--busybox", busybox, code=3)
