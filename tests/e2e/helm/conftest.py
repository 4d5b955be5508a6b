"""The release under test, driven by Helm 3 or 4 as a user would. These tests leave the cluster without a release."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from support.cluster import ROOT
from support.live import Live, is_ready, node_ready
from support.live_facts import RELEASE_NAMESPACE
from support.machines import Machines

CHART = ROOT / "charts" / "nodewright"
RELEASE = "nodewright"


@dataclass
class Helm:
    """One Helm program and the cluster that it works on."""

    program: Path
    live: Live

    def __call__(self, *words: str, check: bool = True, timeout: float = 400) -> str:
        """Run Helm; return what it wrote."""
        done = subprocess.run(
            [self.program, f"--kubeconfig={self.live.kubeconfig}", f"--namespace={RELEASE_NAMESPACE}", *words],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"helm {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def installed(self) -> bool:
        """Whether the release exists."""
        done = self("status", RELEASE, check=False)
        return "not found" not in done

    def apply(self, chart: Path, *more: str) -> float:
        """Install or upgrade; returns the seconds until Helm, and then the cluster, says that everything is Ready."""
        began = time.monotonic()
        self("upgrade", "--install", RELEASE, str(chart), "--create-namespace", "--wait", "--timeout=300s", *more)
        self.live.wait("release and Nodes Ready", self.all_ready, 180)
        return time.monotonic() - began

    def all_ready(self) -> bool:
        """Whether all Pods of the release and all Nodes are Ready, and each agent has its Node."""
        nodes, pods = self.live.core.list_node().items, self.live.pods(RELEASE_NAMESPACE)
        agents = [pod for pod in pods if (pod.metadata.labels or {}).get("app.kubernetes.io/component") == "agent"]
        ours = [node for node in nodes if "nodewright.dev/agent" in (node.metadata.labels or {})]
        running = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
        return all(map(node_ready, nodes)) and all(map(is_ready, running)) and 0 < len(agents) == len(ours)


@pytest.fixture(scope="session")
def machines() -> Machines:
    """The kind cluster's machines."""
    cluster = os.environ.get("NODEWRIGHT_E2E_KIND")
    if not cluster:
        pytest.skip("NODEWRIGHT_E2E_KIND names no kind cluster: these tests install and uninstall the release")
    return Machines(cluster)


@pytest.fixture(params=["helm", "helm4"])
def helm(request: pytest.FixtureRequest, machines: Machines, live: Live) -> Helm:
    """Helm 3, then Helm 4."""
    given = os.environ.get(str(request.param).upper())
    return Helm(Path(given) if given else Assets().obtain([request.param])[request.param], live)


@pytest.fixture
def clean(helm: Helm) -> Iterator[None]:
    """No release before and after the test."""

    def uninstall() -> None:
        if helm.installed():
            helm("uninstall", RELEASE, "--wait", "--timeout=300s")

    uninstall()
    yield
    uninstall()


@pytest.fixture(scope="session")
def chart() -> Path:
    """The chart of this tree."""
    return CHART


@pytest.fixture
def previous_chart(tmp_path: Path) -> Path:
    """The chart as an older release: another version, and so other labels on every object."""
    copy = tmp_path / "nodewright"
    shutil.copytree(CHART, copy)
    file = copy / "Chart.yaml"
    lines = ["version: 0.0.9" if line.startswith("version:") else line for line in file.read_text().splitlines()]
    file.write_text("\n".join(lines) + "\n")
    return copy
