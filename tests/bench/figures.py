"""Rounds of two contenders as text: a line each, and the ratios of their medians."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Title, field of a round, and how it is written.
Column = tuple[str, str, str]


class Comparison:
    """How rounds are shown; `ours` and `theirs` are the names that `Round.contender` may have."""

    def __init__(self, what: str, ours: str, theirs: str, columns: Sequence[Column], ratios: Sequence[str]) -> None:
        """`what` heads the column of names; `ratios` are the fields whose medians are compared."""
        self._what = what
        self._ours = ours
        self._theirs = theirs
        self._columns = columns
        self._ratios = ratios
        self._name_width = max(15, len(theirs))

    def table(self, title: str, rounds: Sequence[Any]) -> str:
        """All rounds, which are of one kind, and the ratios where both took part."""
        lines = [title, self._line(self._what, (head for head, _, _ in self._columns))]
        lines += [
            self._line(r.contender, (_text(getattr(r, field), form) for _, field, form in self._columns))
            for r in rounds
        ]
        if {r.contender for r in rounds} == {self._ours, self._theirs}:
            titles = {field: title for title, field, _ in self._columns}
            told = (f"{titles[field]} {self.ratio(rounds, field):.2f}" for field in self._ratios)
            lines.append(f"ratio of medians: {', '.join(told)}")
        return "\n".join(lines)

    def ratio(self, rounds: Sequence[Any], field: str) -> float:
        """Ours against theirs."""
        theirs = median(rounds, self._theirs, field)
        return median(rounds, self._ours, field) / theirs if theirs else float("nan")

    def _line(self, name: str, cells: Iterable[str]) -> str:
        widths = (max(len(title), 7) for title, _, _ in self._columns)
        return f"{name:<{self._name_width}} " + " ".join(f"{cell:>{n}}" for cell, n in zip(cells, widths, strict=True))


def median(rounds: Iterable[Any], contender: str, field: str) -> float:
    """The median of a field over a contender's rounds."""
    return statistics.median(getattr(r, field) for r in rounds if r.contender == contender)


def print_logs(folder: Path) -> None:
    """The end of each contender's log."""
    for file in sorted(folder.glob("*.log")):
        print(f"--- {file.name}\n{file.read_text(errors='replace')[-4000:]}", file=sys.stderr)


def end(wrong: Sequence[str]) -> None:
    """Tell what is wrong and fail, if anything is."""
    for what in wrong[:20]:
        print(f"WRONG: {what}", file=sys.stderr)
    if wrong:
        sys.exit(f"{len(wrong)} things are wrong")


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
