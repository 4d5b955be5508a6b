"""The embedded cluster of a run: its registry setting, its start, the cluster DNS, its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conformance.errors import ConformanceError
from conformance.images import DOMAIN
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout, state_root

_NODEWRIGHT = (sys.executable, "-m", "nodewright.cli.main")
_START_TIMEOUT = 300  # seconds


def prepare(name: str, nodes: int) -> LocalCluster:
    """Decide the cluster's name and addresses, without starting anything; refuses one that exists."""
    layout = Layout(state_root(), name)
    if layout.state_file.exists():
        raise ConformanceError(
            f"there is a cluster {name} already",
            f"remove it with `nodewright down --name {name} --purge`, or give CLUSTER=another",
        )
    return LocalCluster.ensure(layout, nodes)


def configure_images(cluster: LocalCluster, mirror: str) -> None:
    """Let the agents ask `mirror` (a URL) before the registry that the tests name."""
    root = cluster.layout.images
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    (root / "registries.toml").write_text(f'[registry."{DOMAIN}"]\nmirrors = ["{mirror}"]\n')


def start(cluster: LocalCluster) -> None:
    """`nodewright up`; the registry is on the bridge's address, which no proxy reaches."""
    address = cluster.state.address
    nodewright("up", "--name", cluster.name, "--wait", "--timeout", str(_START_TIMEOUT), direct=address)


def remove(name: str) -> None:
    """`nodewright down --purge`. Safe to repeat, also for a cluster that never started."""
    nodewright("down", "--name", name, "--purge")


def kubectl(cluster: LocalCluster, *words: str, stdin: str | None = None) -> str:
    """What kubectl wrote; ConformanceError with its complaint when it failed."""
    return nodewright("kubectl", "--name", cluster.name, "--", *words, stdin=stdin, quiet=True)


def install_dns(cluster: LocalCluster, manifest: str) -> None:
    """Apply `manifest` and wait until its Pods are ready."""
    kubectl(cluster, "apply", "-f", "-", stdin=manifest)
    kubectl(cluster, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s")


def nodewright(*words: str, stdin: str | None = None, quiet: bool = False, direct: str = "") -> str:
    """Run a verb of `nodewright`. `quiet`: return its output instead of showing it. `direct`: never by a proxy."""
    environ = dict(os.environ)
    environ["PYTHONPATH"] = _python_path()
    if direct:
        environ["NO_PROXY"] = environ["no_proxy"] = ",".join(filter(None, (environ.get("NO_PROXY"), direct)))
    done = subprocess.run(
        [*_NODEWRIGHT, *words], env=environ, input=stdin, text=True, check=False,
        stdout=subprocess.PIPE if quiet else None, stderr=subprocess.PIPE if quiet else None,
    )  # fmt: skip
    if done.returncode != 0:
        raise ConformanceError(
            f"nodewright {' '.join(words)} ended with {done.returncode}\n{done.stderr or ''}".rstrip()
        )
    return done.stdout or ""


def _python_path() -> str:
    """The cluster's own processes must not see this tool's folder."""
    tools = Path(__file__).resolve().parents[1]
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(part for part in parts if part and Path(part).resolve() != tools)
