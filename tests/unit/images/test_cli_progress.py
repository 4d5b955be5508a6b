"""What a person sees of a pull: a bar on a terminal, lines in a log, and pulls of others in the list."""

import io
import json

from rich.console import Console

from nodewright.cli import image as cli
from nodewright.cli.output import Format
from nodewright_agent.runtime.images.model import PullProgress
from nodewright_agent.runtime.images.progress import PullUnderWay


def console(monkeypatch, terminal):
    out = io.StringIO()
    made = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(cli, "stderr", lambda: made)
    return out


def steps(report):
    """Two layers of 100 MB: one is here already, one comes."""
    report(PullProgress("a", "sha256:" + "1" * 64, "waiting", 0, 100_000_000))
    report(PullProgress("a", "sha256:" + "2" * 64, "exists", 100_000_000, 100_000_000))
    report(PullProgress("a", "sha256:" + "1" * 64, "pulling", 50_000_000, 100_000_000))
    report(PullProgress("a", "sha256:" + "1" * 64, "done", 100_000_000, 100_000_000))


def test_lines_in_a_log(monkeypatch):
    out = console(monkeypatch, terminal=False)
    monkeypatch.setattr(cli, "LINE_EVERY", 0.0)
    with cli._progress("r.example/a:1") as report:
        steps(report)
    lines = out.getvalue().splitlines()
    assert lines[1] == "  sha256:222222222222: already here"
    assert lines[2].startswith("  150 of 200 MB, 1 of 2 layers, ")
    assert lines[3].startswith("  sha256:111111111111: ")
    assert "\x1b" not in out.getvalue()


def test_few_lines_where_it_is_quick(monkeypatch):
    out = console(monkeypatch, terminal=False)
    with cli._progress("r.example/a:1") as report:
        steps(report)
    assert len(out.getvalue().splitlines()) == 2


def test_a_bar_on_a_terminal(monkeypatch):
    out = console(monkeypatch, terminal=True)
    with cli._progress("r.example/[a]:1") as report:
        steps(report)
    assert "r.example/[a]:1" in out.getvalue()
    assert "2 of 2 layers" in out.getvalue()


def test_pulls_of_others_in_the_list(capsys):
    pull = PullUnderWay("r.example/a:1", "agent one", 7, 1.0, 2.0, 3, 1, 120_000_000, 300_000_000, 12_000_000.4)
    cli._show([], Format.TABLE, [pull])
    shown = " ".join(capsys.readouterr().out.split())
    assert "r.example/a:1" in shown
    assert "pulling" in shown
    cli._show([], Format.JSON, [pull])
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["names"] == ["r.example/a:1"]
    assert (entry["id"], entry["pull"]["layersDone"], entry["pull"]["bytesPerSecond"]) == ("", 1, 12_000_000)
