"""Quantities: upstream's examples, and properties."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube import quantity
from nodewright.kube.quantity import QuantityError, format_binary, format_decimal, format_milli, milli, parse, value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0), ("+1", 1), ("-1", -1), ("00012", 12), ("1.", 1), (".5", Fraction(1, 2)), ("0.1", Fraction(1, 10)),
        ("1n", Fraction(1, 10**9)), ("1u", Fraction(1, 10**6)), ("1m", Fraction(1, 1000)), ("1k", 1000),
        ("1M", 10**6), ("1G", 10**9), ("1T", 10**12), ("1P", 10**15), ("1E", 10**18),
        ("1Ki", 1 << 10), ("1Mi", 1 << 20), ("1Gi", 1 << 30), ("1Ti", 1 << 40), ("1Pi", 1 << 50), ("1Ei", 1 << 60),
        ("1e3", 1000), ("1E3", 1000), ("12e-3", Fraction(12, 1000)), ("1e+2", 100), ("1.5Gi", 3 << 29),
        ("0.1Ki", Fraction(1024, 10)), ("-2Ki", -2048), ("-1.5m", Fraction(-15, 10000)),
        # finer than a nano-unit: away from zero; binary amounts: capped at 2^63-1
        ("0.1n", Fraction(1, 10**9)), ("-0.1n", Fraction(-1, 10**9)), ("1.0000000001", Fraction(1000000001, 10**9)),
        ("1e-400", Fraction(1, 10**9)), ("0e999", 0), ("8Ei", 2**63 - 1), ("100Ei", 2**63 - 1), ("100E", 10**20),
    ],
)  # fmt: skip
def test_parse(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 ", " 1", "-", "+", ".", "1.2.3", "1i", "1ki", "1mi", "1KI", "k", "1e", "1e3k", "1eM", "--1", "0x10",
     "1_000", "NaN", "inf", "١", "1\n", "1" * 300, "1e101", "1e999999999", "1Kii", "1 Ki", "5,5"],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(QuantityError) as caught:
        parse(text)
    assert "quantity" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "units", "thousandths"),
    [("100m", 1, 100), ("0.5m", 1, 1), ("1500m", 2, 1500), ("2", 2, 2000), ("1n", 1, 1), ("1.0001", 2, 1001),
     ("-1500m", -2, -1500), ("1Ki", 1024, 1024000), ("0", 0, 0)],
)  # fmt: skip
def test_value_and_milli_round_away_from_zero(text, units, thousandths):
    assert (value(text), milli(text)) == (units, thousandths)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1000, "1k"), (1500, "1500"), (Fraction(3, 2), "1500m"), (10**18, "1E"), (Fraction(1, 10**10), "1n"),
     (-2000, "-2k"), (10**21, "1000E")],
)  # fmt: skip
def test_format_decimal(number, text):
    assert format_decimal(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1000, "1k"), (1023, "1023"), (1024, "1Ki"), (1025, "1025"), (3 << 29, "1536Mi"), (-2048, "-2Ki"),
     (1 << 60, "1Ei")],
)  # fmt: skip
def test_format_binary(number, text):
    assert format_binary(number) == text


def test_format_milli():
    assert (format_milli(1500), format_milli(2000), format_milli(0)) == ("1500m", "2", "0")


@given(st.integers(-(2**63), 2**63))
def test_canonical_forms_read_back(number):
    assert parse(format_decimal(number)) == number
    if abs(number) < 2**63 - 1:
        assert parse(format_binary(number)) == number
    assert parse(format_milli(number)) == Fraction(number, 1000)


@given(st.decimals(-(10**15), 10**15, places=9), st.sampled_from(["", "m", "k", "M", "Ki", "Gi", "e3", "e-2"]))
def test_parse_is_exact_to_a_nano_unit(number, suffix):
    unit = {"": 1, "m": Fraction(1, 1000), "k": 1000, "M": 10**6, "Ki": 1024, "Gi": 1 << 30, "e3": 1000,
            "e-2": Fraction(1, 100)}[suffix]  # fmt: skip
    exact = Fraction(number) * unit
    got = parse(f"{number:f}{suffix}")
    if abs(exact) <= 2**63 - 1:
        assert 0 <= abs(got) - abs(exact) < Fraction(1, 10**9)
        assert milli(f"{number:f}{suffix}") >= exact * 1000 - 1


@given(st.text(max_size=40))
def test_no_text_causes_another_error(text):
    try:
        parse(text)
    except QuantityError:
        pass


def test_the_cache_is_bounded():
    assert quantity.parse.cache_info().maxsize is not None
