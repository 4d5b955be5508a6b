"""The container tests once more on a kernel with cgroup v2 alone, inside user-mode Linux."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from uml.uml_launcher import missing, run

ROOT = Path(__file__).parents[3]
HERE = "tests/integration/runtime"
INSIDE = tuple(f"{HERE}/test_{name}.py" for name in ("containers", "limits", "two_namespaces"))

pytestmark = [pytest.mark.needs_uml, pytest.mark.needs_root, pytest.mark.timeout(400)]


def test_containers_with_cgroup_v2(tmp_path: Path):
    if lacking := missing():
        pytest.skip(lacking)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=200"]
    result = run([*argv, "--junit-xml=/run/results/report.xml", *INSIDE], tmp_path, folder=ROOT, limit=350)
    assert (tmp_path / "report.xml").exists(), result.output
    cases = list(ElementTree.parse(tmp_path / "report.xml").iter("testcase"))
    assert [case.get("name") for case in cases if case.find("failure") is not None] == [], result.output
    assert len(cases) > 32, result.output
    assert result.status == 0, result.output
