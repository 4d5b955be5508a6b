"""Times of the API from seconds since the epoch, which is what the pure core counts in."""

from __future__ import annotations

from datetime import UTC, datetime

from nodewright.kube.times import format_rfc3339


def rfc3339(seconds: float) -> str:
    """Write seconds since the epoch, cut to whole seconds; 0 is the epoch, as upstream writes an unknown start."""
    return format_rfc3339(datetime.fromtimestamp(seconds, UTC))


def rfc3339_micro(seconds: float) -> str:
    """Write seconds since the epoch with microseconds."""
    return format_rfc3339(datetime.fromtimestamp(seconds, UTC), micro=True)
