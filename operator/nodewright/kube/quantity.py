"""Resource quantities, exact: no floating point anywhere (apimachinery's resource.Quantity).

Suffixes: n u m (none) k M G T P E, Ki Mi Gi Ti Pi Ei, and exponents (1e3, 1E-2).
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

__all__ = [
    "QuantityError",
    "format_binary",
    "format_decimal",
    "format_milli",
    "milli",
    "parse",
    "value",
]


class QuantityError(ValueError):
    """A text that is no quantity; the message shows it."""


_PATTERN = re.compile(
    r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?", re.ASCII
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO = Fraction(1, 10**9)
_MAX = 2**63 - 1
_MAX_LENGTH = 200  # characters; far beyond any resource, and it bounds the work that a text can cause
_MAX_EXPONENT = 100


@lru_cache(maxsize=8192)
def parse(text: str) -> Fraction:
    """Read a quantity. Raises QuantityError.

    Upstream's limits: anything finer than a nano-unit is rounded away from zero, and binary amounts are capped at
    2^63-1.
    """
    match = _PATTERN.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise QuantityError(f"not a quantity: {text[:_MAX_LENGTH]!r}")
    sign, whole, part, bare, suffix = match.groups()
    part = part or bare or ""
    number = Fraction(int((whole or "0") + part), 10 ** len(part))
    suffix = suffix or ""
    if suffix in _BINARY:
        number = min(number * 2 ** _BINARY[suffix], Fraction(_MAX))
    else:
        number = _scale(number, _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:]), text)
    if number % _NANO:
        number = (number // _NANO + 1) * _NANO
    return -number if sign == "-" else number


def _scale(number: Fraction, exponent: int, text: str) -> Fraction:
    if number == 0:
        return number
    if exponent > _MAX_EXPONENT:
        raise QuantityError(f"quantity out of range: {text!r}")
    if exponent < -_MAX_EXPONENT - _MAX_LENGTH:  # below a nano-unit whatever the digits are
        return _NANO
    return number * Fraction(10) ** exponent if exponent >= 0 else number / Fraction(10) ** -exponent


def _away_from_zero(number: Fraction) -> int:
    magnitude = math.ceil(abs(number))
    return magnitude if number >= 0 else -magnitude


def value(text: str) -> int:
    """Give whole units (bytes, Pods), rounded away from zero as Quantity.Value does."""
    return _away_from_zero(parse(text))


def milli(text: str) -> int:
    """Give thousandths (milli-CPU), rounded away from zero as Quantity.MilliValue does."""
    return _away_from_zero(parse(text) * 1000)


def format_decimal(number: Fraction | int) -> str:
    """Write in canonical DecimalSI form: no fraction, the largest suffix that fits. Below a nano-unit is rounded up."""
    nanos = _away_from_zero(Fraction(number) * 10**9)
    if nanos == 0:
        return "0"
    for suffix, exponent in sorted(_DECIMAL.items(), key=lambda item: -item[1]):
        unit = 10 ** (exponent + 9)
        if nanos % unit == 0:
            return f"{nanos // unit}{suffix}"
    raise AssertionError("every integer is a multiple of one nano-unit")


def format_binary(number: int) -> str:
    """Write in canonical BinarySI form (bytes): `1536Mi`; below 1024 without suffix, as upstream."""
    if -1024 < number < 1024:
        return format_decimal(number)
    for suffix, exponent in sorted(_BINARY.items(), key=lambda item: -item[1]):
        if number % (1 << exponent) == 0:
            return f"{number >> exponent}{suffix}"
    return str(number)


def format_milli(number: int) -> str:
    """Write thousandths in canonical form: 1500 -> `1500m`, 2000 -> `2`."""
    return format_decimal(Fraction(number, 1000))
