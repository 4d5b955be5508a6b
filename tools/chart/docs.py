"""Write the table of values into the Helm chart's README.md, from the `# --` comments of values.yaml.

    python tools/chart/docs.py           write
    python tools/chart/docs.py --check   say whether it differs, exit code 1

A comment that begins with `# --` describes the key below it, in helm-docs' form; a key with a description is shown as a
whole, its children are not. A unit test makes the same check.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/nodewright"
BEGIN, END = "<!-- values: made by tools/chart/docs.py -->", "<!-- end of values -->"

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?: |$)")


class Value(NamedTuple):
    """One row of the table."""

    path: str
    default: Any
    text: str


def described(source: str) -> Iterator[Value]:
    """The values that have a description, in order. Raises ValueError where a description belongs to no key."""
    defaults = yaml.safe_load(source)
    stack: list[tuple[int, str]] = []
    text: list[str] = []
    for number, line in enumerate(source.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("# -- "):
            text = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and text:
            text.append(stripped.removeprefix("#").strip())
        elif found := _KEY.match(line):
            indent = len(found["indent"])
            stack = [entry for entry in stack if entry[0] < indent] + [(indent, found["key"])]
            if text:
                path = [key for _, key in stack]
                yield Value(".".join(path), _at(defaults, path), " ".join(text))
            text = []
        elif text:
            raise ValueError(f"values.yaml:{number}: a description stands before something that is no key")


def undescribed(source: str) -> list[str]:
    """Paths of the values that neither have a description nor belong to one that has."""
    known = {value.path for value in described(source)}
    return list(_leaves(yaml.safe_load(source), known))


def table(source: str) -> str:
    """The table, as Markdown."""
    rows = ["| Value | Default | What it does |", "|---|---|---|"]
    for value in described(source):
        default = json.dumps(value.default, separators=(", ", ": ")).replace("|", "\\|")
        if len(default) > 60:
            default = "see values.yaml"
        else:
            default = f"`{default}`"
        text = value.text.replace("|", "\\|")
        rows.append(f"| `{value.path}` | {default} | {text} |")
    return "\n".join(rows) + "\n"


def rendered(readme: str, source: str) -> str:
    """The README with a new table. Raises ValueError where its place is not marked."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{table(source)}{END}{after}"


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _leaves(values: Any, known: set[str], path: str = "") -> Iterator[str]:
    if path in known:
        return
    if not isinstance(values, dict) or not values:
        yield path
        return
    for key, value in values.items():
        yield from _leaves(value, known, f"{path}.{key}" if path else key)


def main() -> int:
    """Write, or with --check compare."""
    readme = CHART / "README.md"
    wanted = rendered(readme.read_text(), (CHART / "values.yaml").read_text())
    if sys.argv[1:] == ["--check"]:
        if readme.read_text() == wanted:
            return 0
        sys.stdout.write("charts/nodewright/README.md does not match values.yaml; run python tools/chart/docs.py\n")
        return 1
    readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
