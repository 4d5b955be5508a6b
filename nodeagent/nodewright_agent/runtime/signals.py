"""Signal names as images and pods write them. Pure."""

from __future__ import annotations

import re
import signal

_REALTIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?")
_LAST = 64


def parse(text: str | int) -> int:
    """``15``, ``"15"``, ``TERM``, ``SIGTERM``, ``SIGRTMIN+3`` -> number. Raises ValueError with the text."""
    name = str(text).strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdigit():
        number = int(name)
    elif match := _REALTIME.fullmatch(name):
        base = 34 if match[1] == "MIN" else _LAST
        number = base + int(match[3] or 0) * (-1 if match[2] == "-" else 1)
    else:
        found = signal.__dict__.get(f"SIG{name}")
        number = int(found) if isinstance(found, signal.Signals) else 0
    if not 1 <= number <= _LAST:
        raise ValueError(f"invalid signal {text!r}")
    return number
