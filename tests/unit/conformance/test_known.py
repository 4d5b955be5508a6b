"""The list of known failures, and the verdict on a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import conformance
from conformance.errors import ConformanceError
from conformance.known import judge, parse, tell
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


@pytest.mark.parametrize(
    ("name", "prefix"), [("known-failures.txt", "[sig-"), ("critest-known-failures.txt", "[k8s.io] ")]
)
def test_the_lists_in_the_repository_are_well_formed(name: str, prefix: str) -> None:
    assert conformance.__file__ is not None
    path = Path(conformance.__file__).parent / name
    listed = parse(path.read_text(), path.name)
    assert listed
    assert all(test.startswith(prefix) for test in listed)


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


def test_what_differs_from_the_list_is_told_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    results = [Result("[sig-a] one", FAILED), Result("[sig-a] two", FAILED), Result("[sig-a] three", PASSED)]
    assert tell(results, {"[sig-a] two": "why", "[sig-a] three": "why"}, "list.txt") == 1
    told = capsys.readouterr().out
    assert "failed, and known to fail:\n  [sig-a] two\n" in told
    assert "failed, and not in list.txt:\n  [sig-a] one\n" in told
    assert "passed, though in list.txt:\n  [sig-a] three\n" in told


def test_a_run_as_listed_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell([Result("[sig-a] one", FAILED)], {"[sig-a] one": "why"}, "list.txt") == 0
    assert "not in" not in capsys.readouterr().out


def test_nothing_chosen_is_an_error() -> None:
    with pytest.raises(ConformanceError, match="no test was chosen"):
        tell([], {}, "list.txt")
