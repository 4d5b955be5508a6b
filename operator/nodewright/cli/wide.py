"""Tables with sentences in the last column, broken so that a line stays readable in 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich.markup import escape

from nodewright.cli.output import print_table, stdout

WIDTH = 120
_GAP = 3
_NARROWEST = 40


def print_sentences(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows whose last cell is text of any length; the other cells stay in one line."""
    found = [list(row) for row in rows]
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *found, strict=True)][:-1]
    room = max(WIDTH - sum(widths) - _GAP * len(widths), _NARROWEST)
    lines: list[list[str]] = []
    for *first, last in found:
        broken = textwrap.wrap(last, room, break_long_words=False, break_on_hyphens=False) or [""]
        lines.append([*first, broken[0]])
        lines += [[*("" for _ in first), more] for more in broken[1:]]
    print_table(columns, [[escape(cell) for cell in line] for line in lines])


def print_text(text: str, indent: str = "") -> None:
    """Print a sentence, broken at the width; further lines get the indent."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    stdout().print("\n".join(lines), markup=False)
