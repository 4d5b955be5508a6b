"""`nodewright` where half of it is missing, as in the container images."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Hides modules from the import system, as if their files were not there.
HIDE = """
import importlib.machinery, sys
finder, hidden = importlib.machinery.PathFinder, {hidden!r}
class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name in hidden else finder.find_spec(name, path, target)
sys.meta_path[:] = [f for f in sys.meta_path if f is not finder and "editable" not in repr(f)] + [Without]
sys.path[:0] = {path!r}
from nodewright.cli.main import main
sys.exit(main({arguments!r}))
"""
OPERATOR = {"nodewright_agent", "nodewright.controlplane"}
AGENT = {"nodewright.controllers", "nodewright.scheduler", "nodewright.framework", "nodewright.controlplane", "kopf"}


def run(hidden: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    path = [entry for entry in sys.path if entry.endswith(("/operator", "/nodeagent"))]
    code = HIDE.format(hidden=hidden, arguments=list(arguments), path=path)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("hidden", "verb"), [(OPERATOR, "operator"), (OPERATOR, "scheduler"), (AGENT, "agent"), (AGENT, "proxy")]
)
def test_own_verbs_start(hidden: set[str], verb: str) -> None:
    result = run(hidden, verb, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"nodewright {verb}" in result.stdout


@pytest.mark.parametrize("hidden", [OPERATOR, AGENT])
def test_overview_and_usage_errors_are_as_ever(hidden: set[str]) -> None:
    assert "Components" in run(hidden, "--help").stdout
    assert run(hidden, "nosuch").returncode == 2


@pytest.mark.parametrize(
    ("hidden", "verb", "half", "missing"),
    [
        (OPERATOR, "proxy", "operator's", "nodewright_agent"),
        (OPERATOR, "up", "operator's", "nodewright.controlplane"),
        (AGENT, "operator", "agent's", "nodewright."),
        (AGENT, "scheduler", "agent's", "nodewright."),
        (AGENT, "status", "agent's", "nodewright.controlplane"),
    ],
)
def test_other_verbs_say_what_is_missing(hidden: set[str], verb: str, half: str, missing: str) -> None:
    result = run(hidden, verb)
    assert result.returncode == 3
    message = " ".join(result.stderr.split())
    assert f"this image holds only the {half} half of Nodewright; there is no {missing}" in message
    assert "Traceback" not in message


def test_a_module_that_is_missing_by_mistake_is_no_missing_half() -> None:
    result = run({"aiohttp"}, "proxy", "--cluster-cidr", "10.0.0.0/8")
    assert "this image" not in result.stderr
