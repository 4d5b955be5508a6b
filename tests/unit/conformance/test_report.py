"""JUnit to results, results to a table."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from conformance.report import FAILED, PASSED, SKIPPED, Result, parse, read, render, table

DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="Kubernetes e2e suite">
  <testcase name="[SynchronizedBeforeSuite]" status="passed" time="1.5"></testcase>
  <testcase name="[It] [sig-node] Pods should be updated [NodeConformance] [Conformance]" status="passed" time="3.25"/>
  <testcase name="[It] [sig-network] DNS should provide DNS [Conformance]" status="failed" time="60">
    <failure message="timed out" type="failed">a long story</failure></testcase>
  <testcase name="[It] [sig-storage] Volumes panic" status="panicked" time="1">
    <error type="panicked">it panicked
    </error></testcase>
  <testcase name="[It] [sig-apps] Not chosen" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
  <testcase name="[It] [sig-apps] Declined" status="skipped" time="0">
    <skipped message="skipped - only for Windows"></skipped></testcase>
</testsuite></testsuites>
"""


def results() -> list[Result]:
    return parse(ElementTree.fromstring(DOCUMENT.encode()))


def test_results_are_what_was_chosen() -> None:
    assert [(result.name, result.state) for result in results()] == [
        ("[sig-apps] Declined", SKIPPED),
        ("[sig-network] DNS should provide DNS [Conformance]", FAILED),
        ("[sig-node] Pods should be updated [NodeConformance] [Conformance]", PASSED),
        ("[sig-storage] Volumes panic", FAILED),
    ]


def test_results_say_why_and_how_long() -> None:
    declined, failed, passed, panicked = results()
    assert (declined.message, failed.message, panicked.message) == ("only for Windows", "timed out", "it panicked")
    assert passed.seconds == 3.25


def test_a_failed_step_of_the_suite_is_a_result() -> None:
    text = (
        '<testsuites><testcase name="[SynchronizedBeforeSuite]"><failure message="no nodes"/></testcase></testsuites>'
    )
    (only,) = parse(ElementTree.fromstring(text))
    assert (only.state, only.message, only.area) == (FAILED, "no nodes", "other")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "junit_01.xml"
    path.write_text(DOCUMENT)
    assert read(path) == results()


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("[sig-node] Pods", "sig-node"),
        ("[sig-api-machinery] Webhooks", "sig-api-machinery"),
        ("Pods [sig-node]", "other"),
        ("", "other"),
    ],
)
def test_area(name: str, area: str) -> None:
    assert Result(name, PASSED).area == area


def test_table_counts_areas_sets_and_all() -> None:
    assert table(results()) == [
        ["area", "passed", "failed", "skipped"],
        ["sig-apps", "0", "0", "1"],
        ["sig-network", "0", "1", "0"],
        ["sig-node", "1", "0", "0"],
        ["sig-storage", "0", "1", "0"],
        ["[Conformance]", "1", "1", "0"],
        ["[NodeConformance]", "1", "0", "0"],
        ["all", "1", "2", "1"],
    ]


def test_table_of_nothing() -> None:
    assert table([]) == [["area", "passed", "failed", "skipped"], ["all", "0", "0", "0"]]


def test_render_aligns() -> None:
    assert render([["area", "passed"], ["sig-node", "12"], ["all", "7"]]).splitlines() == [
        "area      passed",
        "sig-node      12",
        "all            7",
    ]


def test_tests_of_critest_are_an_area_of_their_own() -> None:
    text = '<testsuites><testcase name="[It] [k8s.io] Image Manager public image [Conformance]" time="1"/></testsuites>'
    (only,) = parse(ElementTree.fromstring(text))
    assert (only.area, only.state) == ("k8s.io", PASSED)
