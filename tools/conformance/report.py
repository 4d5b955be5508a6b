"""What a run says: JUnit to results, results to a table per area. Pure but for reading the file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_AREA = re.compile(r"^\[(sig-[a-z-]+|k8s\.io)\]")  # the latter is critest's
_LEAF = re.compile(r"^\[It\] ")
_NODE_CONFORMANCE, _CONFORMANCE = "[NodeConformance]", "[Conformance]"


@dataclass(frozen=True)
class Result:
    """One test that was chosen. `message` is why it failed or skipped itself; `seconds` is how long it took."""

    name: str
    state: str
    message: str = ""
    seconds: float = 0.0

    @property
    def area(self) -> str:
        """The special interest group that the test belongs to."""
        match = _AREA.match(self.name)
        return "other" if match is None else match[1]


def read(path: Path) -> list[Result]:
    """The results in a JUnit file; tests that were not chosen are left out."""
    return parse(ElementTree.parse(path).getroot())


def parse(root: ElementTree.Element) -> list[Result]:
    """The same for a document. Steps of the suite itself (BeforeSuite and so on) count when they failed."""
    found = []
    for case in root.iter("testcase"):
        result = _result(case)
        if result is not None:
            found.append(result)
    return sorted(found, key=lambda result: result.name)


def _result(case: ElementTree.Element) -> Result | None:
    name = _LEAF.sub("", case.get("name") or "")
    seconds = float(case.get("time") or 0)
    problem = case.find("failure")
    if problem is None:
        problem = case.find("error")
    if problem is not None:
        text = problem.get("message") or (problem.text or "").strip()
        return Result(name, FAILED, text, seconds)
    if not _AREA.match(name):
        return None  # a step of the suite that went well
    skipped = case.find("skipped")
    if skipped is None:
        return Result(name, PASSED, "", seconds)
    reason = skipped.get("message") or ""
    # ginkgo says "skipped" of what the focus left out, and "skipped - REASON" of what skipped itself
    return (
        Result(name, SKIPPED, reason.removeprefix("skipped - "), seconds) if reason.startswith("skipped - ") else None
    )


def table(results: Iterable[Result]) -> list[list[str]]:
    """Rows of area, passed, failed, skipped; then what is of the conformance and node conformance sets; then all."""
    everything = list(results)
    areas = sorted({result.area for result in everything})
    rows = [_row(area, [result for result in everything if result.area == area]) for area in areas]
    for label in (_CONFORMANCE, _NODE_CONFORMANCE):
        if chosen := [result for result in everything if label in result.name]:
            rows.append(_row(label, chosen))
    return [["area", PASSED, FAILED, SKIPPED], *rows, _row("all", everything)]


def _row(title: str, results: Sequence[Result]) -> list[str]:
    return [title, *(str(sum(result.state == state for result in results)) for state in (PASSED, FAILED, SKIPPED))]


def render(rows: Sequence[Sequence[str]]) -> str:
    """The rows as text, the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return "\n".join(lines)
