from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nodewright.cli import main as program
from nodewright.cli.doctoring import CHECKS, Check, Outcome, run_checks, software
from nodewright.cli.doctoring.host import inotify, state_directory
from nodewright.cli.doctoring.model import Finding, failed, ok


def test_report_counts_and_keeps_order(tmp_path: Path) -> None:
    def unreadable(_root: Path) -> Finding:
        raise PermissionError(13, "Permission denied", "/proc/x")

    report = run_checks(
        [
            Check("a", "one", lambda root: ok(str(root))),
            Check("a", "two", lambda _root: failed("missing", "install it")),
            Check("b", "three", unreadable),
        ],
        tmp_path,
    )
    assert (report.failed, report.warnings) == (1, 1)
    assert [(r.title, r.outcome) for r in report.results] == [
        ("one", Outcome.OK),
        ("two", Outcome.FAILED),
        ("three", Outcome.WARNING),
    ]
    assert "Permission denied" in report.results[2].detail


def test_checks_have_titles_of_their_own() -> None:
    titles = [(check.group, check.title) for check in CHECKS]
    assert len(set(titles)) == len(titles)


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tool = next(tool for tool in software.PROGRAMS if tool.name == "conmon")
    finding = software.program(tool, tmp_path)
    assert finding.outcome is Outcome.FAILED
    assert "package conmon" in finding.hint


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("runc version 1.1.5", Outcome.WARNING), ("runc version 1.3.6", Outcome.OK), ("?", Outcome.OK)],
)
def test_an_old_runc_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, outcome: Outcome
) -> None:
    fake = tmp_path / "runc"
    fake.write_text(f"#!/bin/sh\necho '{answer}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert software.program(software.PROGRAMS[0], tmp_path).outcome is outcome


def test_missing_packages_are_failures(tmp_path: Path) -> None:
    finding = software.packages(["msgspec", "no-such-package-x"], tmp_path)
    assert finding.outcome is Outcome.FAILED
    assert finding.detail == "no-such-package-x not installed"


def test_a_state_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    assert state_directory(tmp_path / "f" / "x").outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("instances", "watches", "settings"),
    [
        (128, 8192, "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=65536"),
        (511, 65536, "sysctl -w fs.inotify.max_user_instances=512`"),
        (512, 65535, "sysctl -w fs.inotify.max_user_watches=65536`"),
        (512, 65536, ""),
    ],
)
def test_few_inotify_instances_or_watches_are_a_warning(
    tmp_path: Path, instances: int, watches: int, settings: str
) -> None:
    (tmp_path / "max_user_instances").write_text(f"{instances}\n")
    (tmp_path / "max_user_watches").write_text(f"{watches}\n")
    finding = inotify(tmp_path, tmp_path)
    assert finding.detail == f"max_user_instances {instances}, max_user_watches {watches}"
    assert finding.outcome is (Outcome.WARNING if settings else Outcome.OK)
    assert settings in finding.hint


def test_the_inotify_limits_are_looked_at() -> None:
    (check,) = [check for check in CHECKS if check.title == "inotify limits"]
    assert "max_user_instances" in check.run(Path("/")).detail


def test_exit_codes_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    arguments = ["doctor", "-o", "json", "--state-dir", str(tmp_path)]
    assert program.main(arguments) == 3  # node hosts need root
    report = json.loads(capsys.readouterr().out)
    user = next(result for result in report["results"] if result["title"] == "user")
    assert user["outcome"] == "failed"
    assert "sudo" in user["hint"]
    assert program.main([*arguments, "--no-nodes"]) == 0
