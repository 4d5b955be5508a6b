"""The query of a logs request: PodLogOptions as kubelet reads and validates them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from nodewright.kube import times

_INT = re.compile(r"[+-]?[0-9]+", re.ASCII)
_STREAMS = ("All", "Stdout", "Stderr")


class BadQuery(Exception):
    """A query that can't be served: `status` is 400 where it can't be read, 422 where a value is not allowed."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the status and the text for the client."""
        super().__init__(message)
        self.status = status


class LogOptions(msgspec.Struct, frozen=True):
    """What of a log is asked for. `since` joins sinceSeconds and sinceTime."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: datetime | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = "All"


def parse(query: Mapping[str, str], now: datetime) -> LogOptions:
    """Read a query. Raises BadQuery."""
    tail = query.get("tail", "") or query.get("tailLines", "")
    tail_lines = None if tail in ("", "all") else _int("tailLines", tail)
    limit_bytes = _optional_int(query, "limitBytes")
    since_seconds = _optional_int(query, "sinceSeconds")
    since_time = query.get("sinceTime", "")
    stream = query.get("stream", "") or "All"
    if tail_lines is not None and tail_lines < 0:
        raise BadQuery(422, "tailLines: must be greater than or equal to 0")
    if limit_bytes is not None and limit_bytes < 1:
        raise BadQuery(422, "limitBytes: must be greater than 0")
    if since_seconds is not None and since_time:
        raise BadQuery(422, "at most one of `sinceTime` or `sinceSeconds` may be specified")
    if since_seconds is not None and since_seconds < 1:
        raise BadQuery(422, "sinceSeconds: must be greater than 0")
    if stream not in _STREAMS:
        raise BadQuery(422, f"stream: must be one of {', '.join(_STREAMS)}")
    if stream != "All" and tail_lines is not None:
        raise BadQuery(422, "`tailLines` and specific `stream` are mutually exclusive for now")
    return LogOptions(
        follow=_bool(query, "follow"),
        previous=_bool(query, "previous"),
        timestamps=_bool(query, "timestamps"),
        since=_since(since_seconds, since_time, now),
        tail_lines=tail_lines,
        limit_bytes=limit_bytes,
        stream=stream,
    )


def _int(name: str, text: str) -> int:
    number = int(text) if _INT.fullmatch(text) and len(text) < 25 else None
    if number is None or not -(2**63) <= number < 2**63:
        raise BadQuery(400, f"{name}: not a 64-bit integer: {text[:40]!r}")
    return number


def _optional_int(query: Mapping[str, str], name: str) -> int | None:
    return _int(name, query[name]) if query.get(name) else None


def _bool(query: Mapping[str, str], name: str) -> bool:
    """API machinery's rule: a parameter that is there is true, but for `false` and `0`."""
    return name in query and query[name].lower() not in ("false", "0")


def _since(seconds: int | None, time: str, now: datetime) -> datetime | None:
    if seconds is not None:
        try:
            return now - timedelta(seconds=seconds)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    if not time:
        return None
    try:
        return times.parse_rfc3339(time)
    except ValueError as error:
        raise BadQuery(400, f"sinceTime: {error}") from None
