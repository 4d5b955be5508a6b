"""Logging set-up of all components: readable lines on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json as jsonlib
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class TextFormatter(logging.Formatter):
    """`time LEVEL logger message key=value ...`; line breaks in values are escaped, so that one record is one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        head = f"{_time(record)} {record.levelname:<7} {record.name} {_one_line(record.getMessage())}"
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in _extras(record).items())
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return head + pairs + trace


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the extras, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _extras(record).items():
            entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return jsonlib.dumps(entry, default=str, ensure_ascii=False)


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _quoted(value: Any) -> str:
    text = _one_line(str(value))
    return jsonlib.dumps(text, ensure_ascii=False) if " " in text or '"' in text or not text else text


def setup(level: int = logging.INFO, json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send all logging to a stream (default: stderr). `json` None means: JSON unless the stream is a terminal.

    Calling it again replaces the earlier set-up.
    """
    target = stream if stream is not None else sys.stderr
    if json is None:
        json = not target.isatty()
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "_nodewright", False):
            root.removeHandler(old)
    handler._nodewright = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(level)
    # every request at INFO would drown all else
    logging.getLogger("aiohttp.access").setLevel(max(level, logging.WARNING))
