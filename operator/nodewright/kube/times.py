"""RFC 3339 times as the API carries them: metav1.Time in seconds, metav1.MicroTime in microseconds, always UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d{2}):(\d{2}))", re.ASCII
)


def now() -> datetime:
    """Give the current time, aware, in UTC."""
    return datetime.now(UTC)


def now_rfc3339(micro: bool = False) -> str:
    """Give the current time as metav1.Time, or as metav1.MicroTime."""
    return format_rfc3339(now(), micro)


def format_rfc3339(moment: datetime, micro: bool = False) -> str:
    """Write an aware datetime as upstream does: whole seconds cut off, or exactly six digits.

    Raises ValueError for a naive datetime, whose meaning would depend on the machine.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without zone")
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    text = text.rjust(20 - 1, "0")  # strftime does not pad years below 1000 everywhere
    return f"{text}.{moment.microsecond:06d}Z" if micro else text + "Z"


def parse_rfc3339(text: str) -> datetime:
    """Read a time with any offset and up to nine digits (cut to microseconds). Raises ValueError with the text."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second, fraction, _zulu, sign, off_hours, off_minutes = match.groups()
    zone: timezone = UTC
    try:
        if sign:
            offset = timedelta(hours=int(off_hours), minutes=int(off_minutes))
            zone = timezone(-offset if sign == "-" else offset)
        micros = int((fraction or "0").ljust(9, "0")[:6])
        return datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), micros, zone)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not an RFC 3339 time: {text!r}: {error}") from None


def seconds_since(text: str, moment: datetime) -> float:
    """Give the seconds from an RFC 3339 time to a moment; negative when it lies ahead."""
    return (moment - parse_rfc3339(text)).total_seconds()
