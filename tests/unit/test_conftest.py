"""What tests/conftest.py is for."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=2)
@given(st.booleans())
def test_no_example_is_too_slow(value: bool) -> None:
    time.sleep(0.25)  # hypothesis lets one take 0.2 s unless told otherwise
