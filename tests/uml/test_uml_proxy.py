"""Boots user-mode Linux once and runs the IPVS packet tests in it; each of them is reported as a test of its own."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from uml.uml_launcher import missing, run

ROOT = Path(__file__).parents[2]
INSIDE = ("tests/uml/ipvs_inside.py", "tests/uml/switch_inside.py")

pytestmark = [pytest.mark.needs_uml, pytest.mark.needs_root, pytest.mark.timeout(560)]


def test_ipvs_inside_uml(tmp_path: Path, subtests: pytest.Subtests) -> None:
    lacking = missing()
    if lacking:
        pytest.skip(lacking)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=100"]
    argv += ["--junit-xml=/run/results/report.xml", *INSIDE]
    result = run(argv, tmp_path, folder=ROOT, limit=450)
    assert (tmp_path / "report.xml").exists(), f"no report; the output was:\n{result.output}"
    cases = ElementTree.parse(tmp_path / "report.xml").iter("testcase")
    count = 0
    for case in cases:
        count += 1
        with subtests.test(msg=case.get("name", "?")):
            problem = case.find("failure")
            if problem is None:
                problem = case.find("error")
            assert problem is None, problem.text
            assert case.find("skipped") is None, "nothing may be skipped here"
    assert count > 20, f"only {count} tests ran; the output was:\n{result.output}"
    assert result.status == 0, result.output
