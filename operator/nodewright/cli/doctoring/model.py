"""What a check is and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path

import msgspec


class Outcome(StrEnum):
    """How a check ended: fine, works with less, or stands in the way."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(msgspec.Struct, frozen=True):
    """What a check function returns; `hint` is said when the outcome is not OK."""

    outcome: Outcome
    detail: str
    hint: str = ""


class Check(msgspec.Struct, frozen=True):
    """One check. `run` gets the state root; `for_nodes` marks what only node hosts need."""

    group: str
    title: str
    run: Callable[[Path], Finding]
    for_nodes: bool = True


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the report."""

    group: str
    title: str
    outcome: Outcome
    detail: str
    hint: str = ""


class Report(msgspec.Struct, frozen=True):
    """What `nodewright doctor -o json` prints."""

    failed: int
    warnings: int
    results: list[Result]


def ok(detail: str) -> Finding:
    """It is there."""
    return Finding(Outcome.OK, detail)


def warning(detail: str, hint: str) -> Finding:
    """It works with less."""
    return Finding(Outcome.WARNING, detail, hint)


def failed(detail: str, hint: str) -> Finding:
    """It stands in the way."""
    return Finding(Outcome.FAILED, detail, hint)


def run_checks(checks: Iterable[Check], root: Path) -> Report:
    """Run the checks in their order. One that cannot look (an OSError) counts as a warning that says so."""
    results = []
    for check in checks:
        try:
            finding = check.run(root)
        except OSError as error:
            finding = warning(f"could not be checked: {error}", "run the command as root")
        results.append(Result(check.group, check.title, finding.outcome, finding.detail, finding.hint))
    counted = [result.outcome for result in results]
    return Report(counted.count(Outcome.FAILED), counted.count(Outcome.WARNING), results)
