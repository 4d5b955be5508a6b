"""The list of tests that are known to fail, and what a run means in its light."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conformance.errors import ConformanceError
from conformance.report import FAILED, PASSED, Result, render, table


@dataclass(frozen=True)
class Verdict:
    """`unexpected` failed without being listed; `stale` are listed and passed; `expected` are listed and failed."""

    unexpected: tuple[Result, ...]
    stale: tuple[str, ...]
    expected: tuple[Result, ...]

    @property
    def good(self) -> bool:
        """Whether list and run agree."""
        return not self.unexpected and not self.stale


def parse(text: str, source: str = "known-failures.txt") -> dict[str, str]:
    """Test name to reason. Each test is a line; the comment lines (`# ...`) right above it are its reason.

    A blank line ends a reason, so one may stand for several tests that follow each other. ConformanceError for a test
    without one, or listed twice.
    """
    found: dict[str, str] = {}
    reason: list[str] = []
    listed = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("#"):
            if listed:
                reason, listed = [], False
            reason.append(stripped.lstrip("# "))
        elif not stripped:
            reason, listed = [], False
        elif stripped in found:
            raise ConformanceError(f"{source}, line {number}: {stripped} is listed twice")
        elif not " ".join(reason).strip():
            raise ConformanceError(f"{source}, line {number}: {stripped} has no reason above it")
        else:
            found[stripped], listed = " ".join(reason), True
    return found


def judge(results: Iterable[Result], known: Mapping[str, str]) -> Verdict:
    """Compare a run with the list. Listed tests that did not run, or skipped themselves, say nothing."""
    everything = list(results)
    failed = [result for result in everything if result.state == FAILED]
    return Verdict(
        unexpected=tuple(result for result in failed if result.name not in known),
        stale=tuple(result.name for result in everything if result.state == PASSED and result.name in known),
        expected=tuple(result for result in failed if result.name in known),
    )


def tell(results: Sequence[Result], listed: Mapping[str, str], source: str) -> int:
    """Print what a run says and how it compares with the list in the file `source`; 0 when they agree, else 1."""
    if not results:
        raise ConformanceError("no test was chosen", "look at FOCUS and SKIP")
    verdict = judge(results, listed)
    lines = [render(table(results))]
    for title, names in (
        ("failed, and known to fail:", [result.name for result in verdict.expected]),
        (f"failed, and not in {source}:", [result.name for result in verdict.unexpected]),
        (f"passed, though in {source}:", list(verdict.stale)),
    ):
        if names:
            lines += ["", title, *(f"  {name}" for name in names)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if verdict.good else 1
