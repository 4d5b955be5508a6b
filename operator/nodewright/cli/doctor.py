"""`nodewright doctor`: what this machine has and lacks, group by group, with a hint for each failure."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from nodewright.cli.doctoring import CHECKS, Outcome, Report, run_checks
from nodewright.cli.options import Output, StateDir
from nodewright.cli.output import Format, emit, stdout
from nodewright.controlplane.layout import state_root

_MARKS = {
    Outcome.OK: "[green]√[/]",
    Outcome.WARNING: "[yellow]‼[/]",
    Outcome.FAILED: "[red]×[/]",
}


def command(
    nodes: Annotated[
        bool, typer.Option("--nodes/--no-nodes", help="Also what node hosts need; without, a control plane alone.")
    ] = True,
    state_dir: StateDir = None,
    output: Output = Format.TABLE,
) -> None:
    """Check this machine. √ is there, ‼ works with less, × stands in the way; exit code 3 when there is any ×."""
    report = run_checks([check for check in CHECKS if nodes or not check.for_nodes], state_root(state_dir))
    if output is Format.TABLE:
        _print(report)
    else:
        emit(report, output)
    if report.failed:
        raise typer.Exit(3)


def _print(report: Report) -> None:
    console = stdout()
    group = ""
    for result in report.results:
        if result.group != group:
            group = result.group
            console.print(f"[bold]{group}[/]\n" + "-" * len(group))
        console.print(f"{_MARKS[result.outcome]} {escape(result.title)}: {escape(result.detail)}")
        if result.hint and result.outcome is not Outcome.OK:
            console.print(f"    {escape(result.hint)}")
    verdict = "nothing stands in the way" if not report.failed else f"{report.failed} checks failed"
    console.print(f"\n{verdict}" + (f", {report.warnings} warnings" if report.warnings else ""))
