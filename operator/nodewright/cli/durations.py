"""Durations as Kubernetes' own command lines take them: Go's notation, such as 15s, 1m30s or 500ms."""

from __future__ import annotations

import re

from nodewright.cli.output import USAGE, CliError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")


def patience(text: str, option: str) -> float | None:
    """As `seconds`, for how long to wait; None, without end, for 0."""
    return None if text in ("0", "0s") else seconds(text, option)


def seconds(text: str, option: str) -> float:
    """A positive duration in seconds. Raises CliError, which names the option."""
    total, end = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end:
            break
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if end != len(text) or total <= 0:
        raise CliError(f"{option} {text!r} is not a duration", "for example 15s or 1m30s", USAGE)
    return total
