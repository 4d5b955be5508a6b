"""Counts that may be percentages. Pure."""

from __future__ import annotations


def scaled(value: int | str | None, total: int, default: int) -> int:
    """A count, or a percentage of `total` rounded up. Text that is neither gives the default."""
    if value is None:
        return default
    if isinstance(value, int):
        return max(0, value)
    number = value.removesuffix("%")
    if number == value or not number.isascii() or not number.isdigit():
        return default
    return -(-int(number) * total // 100)
