"""The list of known failures, and the verdict on a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import conformance
from conformance.errors import ConformanceError
from conformance.known import judge, parse
from conformance.report import FAILED, PASSED, SKIPPED, Result

LIST = """# How the list works.

# the kernel has
# no such thing
[sig-node] One
[sig-node] Two

# a bug
[sig-apps] Three
# another bug
[sig-apps] Four
"""


def test_reasons_stand_above() -> None:
    assert parse(LIST) == {
        "[sig-node] One": "the kernel has no such thing",
        "[sig-node] Two": "the kernel has no such thing",
        "[sig-apps] Three": "a bug",
        "[sig-apps] Four": "another bug",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sig-node] One\n", "line 1: [sig-node] One has no reason above it"),
        ("# why\n\n[sig-node] One\n", "line 3: [sig-node] One has no reason above it"),
        ("#\n[sig-node] One\n", "line 2: [sig-node] One has no reason above it"),
        ("# why\n[sig-node] One\n[sig-node] One\n", "line 3: [sig-node] One is listed twice"),
    ],
)
def test_bad_lists_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        parse(text, "the list")
    assert str(caught.value) == f"the list, {message}"


def test_the_list_in_the_repository_is_well_formed() -> None:
    assert conformance.__file__ is not None
    path = Path(conformance.__file__).parent / "known-failures.txt"
    assert all(name.startswith("[sig-") for name in parse(path.read_text(), path.name))


def test_a_run_as_the_list_says() -> None:
    verdict = judge([Result("a", PASSED), Result("b", FAILED), Result("c", SKIPPED)], {"b": "why", "c": "why"})
    assert verdict.good
    assert [result.name for result in verdict.expected] == ["b"]


def test_a_failure_that_is_not_listed() -> None:
    verdict = judge([Result("a", FAILED)], {})
    assert not verdict.good
    assert [result.name for result in verdict.unexpected] == ["a"]


def test_a_listed_test_that_passed() -> None:
    verdict = judge([Result("a", PASSED)], {"a": "why"})
    assert not verdict.good
    assert verdict.stale == ("a",)
