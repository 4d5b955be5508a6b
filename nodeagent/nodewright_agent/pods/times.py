"""Times of the API from seconds since the epoch, which is what the pure core counts in."""

from __future__ import annotations

from datetime import UTC, datetime

from nodewright.kube.times import format_rfc3339, parse_rfc3339


def rfc3339(seconds: float) -> str:
    """Write seconds since the epoch, cut to whole seconds; 0 is the epoch, as upstream writes an unknown start."""
    return format_rfc3339(datetime.fromtimestamp(seconds, UTC))


def rfc3339_micro(seconds: float) -> str:
    """Write seconds since the epoch with microseconds."""
    return format_rfc3339(datetime.fromtimestamp(seconds, UTC), micro=True)


def seconds(text: str | None) -> float:
    """Read a time of the API as seconds since the epoch; 0 where there is none."""
    return parse_rfc3339(text).timestamp() if text else 0.0
