"""What the verbs print with: errors, tables, JSON and YAML, and progress that also reads well in a CI log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

    from nodewright.controlplane.progress import Step

OK, FAILED, USAGE, PRECONDITION, TIMED_OUT = 0, 1, 2, 3, 4

_HEARTBEAT = 15.0  # seconds between status lines where lines cannot be redrawn


class CliError(Exception):
    """What the user is told instead of a traceback: what is wrong, what to do about it, and the exit code."""

    def __init__(self, message: str, hint: str = "", exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


class Format(StrEnum):
    """Values of `-o`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def stdout() -> Console:
    """The console for results. Tables are not cut when the output goes into a file or a pipe."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, width=1000, soft_wrap=True)


def stderr() -> Console:
    """The console for progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_error(message: str, hint: str = "") -> None:
    """Print in the form that every verb uses for errors."""
    console = stderr()
    console.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        console.print(f"[bold]hint:[/] {escape(hint)}")


def escape(text: str) -> str:
    """Text as it is, where markup is understood. What draws is loaded here, when it is needed: components never do."""
    from rich.markup import escape

    return escape(text)


def emit(data: Any, output: Format) -> None:
    """Print `data` (plain values or msgspec structs) as JSON or YAML."""
    if output is Format.YAML:
        import yaml

        sys.stdout.write(yaml.safe_dump(msgspec.to_builtins(data), sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under upper-case column heads, in kubectl's manner. Cells may hold rich markup."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.upper(), no_wrap=True)
    for row in rows:
        table.add_row(*row)
    stdout().print(table)


def human_bytes(count: float) -> str:
    """Bytes for people: 233.6 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


class RichProgress:
    """Steps as lines on standard error, the running one with a spinner; in a log, with a heartbeat instead."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or stderr()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while it runs; its last line tells how it ended and how long it took."""
        began = time.monotonic()
        step = _RichStep(self.console, title, began)
        try:
            with step.spinning():
                yield step
        except BaseException:
            self.console.print(f"[red]×[/] {escape(title)} {_elapsed(began)}")
            raise
        self.console.print(f"[green]√[/] {escape(title)}{step.outcome} {_elapsed(began)}")


class _RichStep:
    def __init__(self, console: Console, title: str, began: float) -> None:
        self._console = console
        self._title = title
        self._began = began
        self._beat = began
        self._set_status: Any = None
        self.outcome = ""

    @contextmanager
    def spinning(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(escape(self._title), total=None)
            self._set_status = lambda text: progress.update(task, description=text)
            yield
            self._set_status = None

    def update(self, text: str) -> None:
        line = f"{escape(self._title)}: {escape(_shortened(text))}"
        if self._set_status is not None:
            self._set_status(line)
        elif time.monotonic() - self._beat > _HEARTBEAT:
            self._beat = time.monotonic()
            self._console.print(f"  {line} {_elapsed(self._began)}")

    def note(self, text: str) -> None:
        self._console.print(f"  [yellow]‼[/] {escape(self._title)}: {escape(text)}")

    def result(self, text: str) -> None:
        self.outcome = f": {escape(text)}"


def _elapsed(began: float) -> str:
    seconds = time.monotonic() - began
    text = f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"[dim]({text})[/]"


def _shortened(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
