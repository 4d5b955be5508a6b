"""`nodewright up`, `status`, `kubectl`, `down` as a user runs them, without node hosts and so without root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.cluster import APISERVER, CONTROLLER_MANAGER, ETCD, OPERATOR, SCHEDULER, LocalCluster, stop
from nodewright.controlplane.layout import Layout

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(240)]
COMPONENTS = {ETCD, APISERVER, CONTROLLER_MANAGER, OPERATOR, SCHEDULER}
PROGRAM = [sys.executable, "-m", "nodewright.cli.main"]


@pytest.fixture
def layout(tmp_path: Path, binaries: dict[str, Path]) -> Iterator[Layout]:
    found = Layout(tmp_path / "s", "u")
    yield found
    stop(found)


def nodewright(layout: Layout, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [*PROGRAM, verb, "--name", layout.name, "--state-dir", str(layout.root), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})


def up(layout: Layout) -> subprocess.CompletedProcess[str]:
    result = nodewright(layout, "up", "--wait")
    assert result.returncode == 0, result.stderr
    return result


def pids(layout: Layout) -> dict[str, int]:
    cluster = LocalCluster.load(layout)
    running = {name: cluster.component(name).running() for name in cluster.components()}
    return {name: record.pid for name, record in running.items() if record is not None}


def test_from_nothing_to_nothing(layout: Layout) -> None:
    told = up(layout)
    assert f"export KUBECONFIG={layout.kubeconfig('admin')}" in told.stdout
    assert "√ kube-apiserver: started" in told.stderr
    first = pids(layout)
    assert set(first) == COMPONENTS

    assert "√ kube-apiserver: running" in up(layout).stderr
    assert pids(layout) == first  # what runs is kept

    status = nodewright(layout, "status", "-o", "json")
    assert status.returncode == 0
    found = json.loads(status.stdout)
    assert found["healthy"]
    assert {part["name"] for part in found["components"]} == COMPONENTS
    assert all(part["memory"] > 1_000_000 for part in found["components"])

    assert nodewright(layout, "kubectl", "create", "configmap", "kept", "--from-literal=a=b").returncode == 0

    os.kill(first[OPERATOR], signal.SIGKILL)
    while OPERATOR in pids(layout):
        time.sleep(0.02)
    status = nodewright(layout, "status")
    assert status.returncode == 1
    assert "died" in status.stdout
    up(layout)
    resumed = pids(layout)
    assert resumed[OPERATOR] != first[OPERATOR]
    assert {**resumed, OPERATOR: 0} == {**first, OPERATOR: 0}

    assert nodewright(layout, "down").returncode == 0
    assert pids(layout) == {}
    assert nodewright(layout, "status").returncode == 1
    up(layout)
    kept = nodewright(layout, "kubectl", "get", "configmap", "kept", "-o", "jsonpath={.data.a}")
    assert kept.stdout == "b"

    assert nodewright(layout, "down", "--purge").returncode == 0
    assert not layout.dir.exists()
    assert all(not Path(f"/proc/{pid}").exists() for pid in resumed.values())
    assert nodewright(layout, "down", "--purge").returncode == 0  # again is fine


@pytest.mark.parametrize("reached", ["cluster.json", "pki/ca.key", "run/etcd.json", "run/kube-apiserver.json"])
def test_a_killed_up_is_resumed(layout: Layout, reached: str) -> None:
    """SIGKILL as soon as a certain thing is there: the next `up` goes on, and no process is started twice."""
    argv = [*PROGRAM, "up", "--name", layout.name, "--state-dir", str(layout.root)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (layout.dir / reached).exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    survived = pids(layout)
    up(layout)
    now = pids(layout)
    assert set(now) == COMPONENTS
    assert {name: now[name] for name in survived} == survived
    assert count_processes(layout) == len(COMPONENTS)


def count_processes(layout: Layout) -> int:
    """Processes of this machine whose command line names the cluster's directory."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += str(layout.dir).encode() in path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_two_ups_at_once_make_one_cluster(layout: Layout) -> None:
    argv = [*PROGRAM, "up", "--name", layout.name, "--state-dir", str(layout.root)]
    both = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert count_processes(layout) == len(COMPONENTS)


def test_our_components_stay_within_their_rights(layout: Layout) -> None:
    """A DaemonSet becomes a Pod and the scheduler says why it waits, with no forbidden request on the way."""
    up(layout)
    manifest = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}},
            {
                "apiVersion": "nodewright.dev/v1alpha1",
                "kind": "DaemonSet",
                "metadata": {"name": "d", "namespace": "default"},
                "spec": {
                    "selector": {"matchLabels": {"app": "d"}},
                    "template": {
                        "metadata": {"labels": {"app": "d"}},
                        "spec": {"containers": [{"name": "c", "image": "i"}]},
                    },
                },
            },
        ],
    }
    path = layout.root / "m.json"
    path.write_text(json.dumps(manifest))
    assert nodewright(layout, "kubectl", "apply", "-f", str(path)).returncode == 0
    waiting = ["wait", "pod", "-l", "app=d", "--for=condition=PodScheduled=false", "--timeout=60s"]
    created = nodewright(layout, "kubectl", "wait", "--for=create", "pod", "-l", "app=d", "--timeout=60s")
    assert created.returncode == 0, created.stderr
    told = nodewright(layout, "kubectl", *waiting)
    assert told.returncode == 0, told.stderr
    for name in (OPERATOR, SCHEDULER):
        log = layout.log(name).read_text().lower()
        assert "forbidden" not in log, log


NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
DAEMONSET = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec:
  selector: {matchLabels: {app: ds}}
  template:
    metadata: {labels: {app: ds}}
    spec:
      tolerations: [{operator: Exists}]
      containers: [{name: c, image: i}]
"""


def test_a_cluster_of_an_older_version_changes_over_to_our_daemonset_controller(
    layout: Layout, binaries: dict[str, Path], tmp_path: Path
) -> None:
    up(layout)
    cluster = LocalCluster.load(layout)
    # as it was before apps/v1 was taken over
    cluster.start_controller_manager(binaries[CONTROLLER_MANAGER])
    operator = cluster.component(OPERATOR).running()
    assert operator is not None
    arguments = [part for part in operator.argv[3:] if not part.startswith("--take-over")]
    cluster.start_own(OPERATOR, arguments, inputs=[layout.kubeconfig(OPERATOR)])
    before = pids(layout)

    up(layout)
    now = pids(layout)
    assert {name for name in now if now[name] != before[name]} == {CONTROLLER_MANAGER, OPERATOR}
    (tmp_path / "objects.yaml").write_text(f"{json.dumps(NODE)}\n---\n{DAEMONSET}")
    assert nodewright(layout, "kubectl", "apply", "-f", str(tmp_path / "objects.yaml")).returncode == 0
    ready = "--for=jsonpath={.status.currentNumberScheduled}=1"
    waited = nodewright(layout, "kubectl", "wait", ready, "daemonset/ds", "--timeout=60s")
    assert waited.returncode == 0, waited.stderr
    shown = nodewright(layout, "kubectl", "get", "daemonset", "ds", "-o", "json", "--show-managed-fields")
    managers = json.loads(shown.stdout)["metadata"]["managedFields"]
    assert [m["manager"] for m in managers if m.get("subresource") == "status"] == ["nodewright-operator"]
