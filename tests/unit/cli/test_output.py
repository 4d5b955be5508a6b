from __future__ import annotations

import io
import json

import msgspec
import pytest
import yaml
from rich.console import Console

from nodewright.cli import waiting
from nodewright.cli.output import Format, RichProgress, emit, human_bytes, print_error


class Thing(msgspec.Struct):
    name: str
    count: int


def logged() -> tuple[RichProgress, io.StringIO]:
    text = io.StringIO()
    return RichProgress(Console(file=text, width=120, soft_wrap=True)), text


def test_a_log_gets_one_line_per_step_and_the_notes() -> None:
    progress, text = logged()
    with progress.step("etcd") as step:
        step.update("waiting")
        step.note("a [strange] note")
        step.result("started")
    lines = text.getvalue().splitlines()
    assert lines[0] == "  ‼ etcd: a [strange] note"
    assert lines[1].startswith("√ etcd: started (")
    assert len(lines) == 2


def test_a_failed_step_says_so_and_the_error_goes_on() -> None:
    progress, text = logged()
    with pytest.raises(ValueError, match="why"), progress.step("etcd"):
        raise ValueError("why")
    assert text.getvalue().startswith("× etcd (")


def test_long_steps_show_signs_of_life_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, text = logged()
    now = [0.0]
    monkeypatch.setattr("nodewright.cli.output.time.monotonic", lambda: now[0])
    with progress.step("build") as step:
        for second in range(40):
            now[0] = float(second)
            step.update(f"package {second}")
    assert [line.split(" (")[0] for line in text.getvalue().splitlines()] == [
        "  build: package 16",
        "  build: package 32",
        "√ build",
    ]


def test_a_terminal_sees_the_result_too() -> None:
    text = io.StringIO()
    progress = RichProgress(Console(file=text, force_terminal=True, width=80))
    with progress.step("etcd") as step:
        step.update("waiting")
        step.result("started")
    assert "started" in text.getvalue()


def test_json_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    emit([Thing("ä", 1)], Format.JSON)
    assert json.loads(capsys.readouterr().out) == [{"name": "ä", "count": 1}]
    emit([Thing("ä", 1)], Format.YAML)
    assert yaml.safe_load(capsys.readouterr().out) == [{"name": "ä", "count": 1}]


def test_markup_in_errors_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("bad [red]value[/]", "try [/x]")
    assert capsys.readouterr().err == "error: bad [red]value[/]\nhint: try [/x]\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (233_600_000, "233.6 MB"), (5e12, "5000.0 GB")]
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert human_bytes(count) == text


def node(name: str, status: str = "True", beat: str = "2026-03-01T10:00:00Z") -> dict[str, object]:
    condition = {"type": "Ready", "status": status, "message": "no network yet", "lastHeartbeatTime": beat}
    return {"metadata": {"name": name}, "status": {"conditions": [condition]}}


START = 1772359200.4  # 2026-03-01T10:00:00.4Z


def test_readiness() -> None:
    found = waiting.Readiness({"a": START, "b": START})
    assert found.describe() == "a has not registered; b has not registered"
    found.see(node("a"))
    found.see(node("other", "False"))
    found.see({"metadata": {"name": "b"}})
    assert found.describe() == "b has posted no status"
    found.see(node("b", "False"))
    assert found.describe() == "b is not Ready: no network yet"
    found.see(node("b"))
    assert found.complete
    found.see(node("a"), deleted=True)
    assert found.describe() == "a was deleted"


def test_what_an_earlier_agent_posted_does_not_count() -> None:
    found = waiting.Readiness({"a": START})
    found.see(node("a", beat="2026-03-01T09:59:59Z"))
    assert found.describe() == "a has posted no status since its agent started"
