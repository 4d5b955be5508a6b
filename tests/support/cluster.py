"""A cluster used as a user would: through the command line only."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NODEWRIGHT = [sys.executable, "-m", "nodewright.cli.main"]


class Cluster:
    """The cluster under test, used through the command line only."""

    def __init__(self, name: str, state_dir: Path) -> None:
        self.name, self.state_dir = name, state_dir
        self.env = {**os.environ, "NODEWRIGHT_STATE_DIR": str(state_dir), "NO_COLOR": "1", "COLUMNS": "200"}

    def run(self, *words: str, check: bool = True, stdin: str | None = None, timeout: float = 300) -> Any:
        """Run ``nodewright WORDS``; return the finished process."""
        done = subprocess.run(
            [*NODEWRIGHT, *words],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def kubectl(self, *words: str, check: bool = True, stdin: str | None = None, timeout: float = 120) -> str:
        """Run ``nodewright kubectl``; return what it wrote (both streams when it may fail)."""
        done = self.run("kubectl", "--name", self.name, "--", *words, check=check, stdin=stdin, timeout=timeout)
        return done.stdout if check else done.stdout + done.stderr

    def get(self, *words: str) -> Any:
        """Return ``kubectl get WORDS -o json`` decoded."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, manifest: str | Path, check: bool = True) -> str:
        """Apply a file, or YAML text."""
        if isinstance(manifest, Path):
            return self.kubectl("apply", "-f", str(manifest), check=check)
        return self.kubectl("apply", "-f", "-", stdin=manifest, check=check)

    def wait(self, what: str, predicate: Callable[[], Any], timeout: float = 60) -> Any:
        """Wait until ``predicate`` answers something true, and return that; fail with the cluster's state."""
        deadline = time.monotonic() + timeout
        while True:
            answer = predicate()
            if answer:
                return answer
            if time.monotonic() > deadline:
                pods = self.kubectl("get", "pods,nodes,events", "-A", check=False)
                pytest.fail(f"waited {timeout:.0f} s for: {what}\n{pods}")
            time.sleep(0.2)

    def pod(self, name: str, namespace: str = "default") -> Any:
        """Return a Pod, or None."""
        found = self.kubectl("get", "pod", name, "-n", namespace, "--ignore-not-found", "-o", "json")
        return json.loads(found) if found.strip() else None

    def wait_running(self, name: str, namespace: str = "default", timeout: float = 60) -> Any:
        """Wait until the Pod is Running with all its containers ready; return it."""

        def running() -> Any:
            pod = self.pod(name, namespace)
            statuses = (pod or {}).get("status", {}).get("containerStatuses", [])
            return (
                pod if pod and pod["status"].get("phase") == "Running" and all(s["ready"] for s in statuses) else None
            )

        return self.wait(f"pod {namespace}/{name} Running", running, timeout)

    def in_node(self, number: int, *argv: str, timeout: float = 30) -> str:
        """Run a command on a node host."""
        netns = f"/run/netns/nw-{self.name}-node{number}"
        done = subprocess.run(
            ["nsenter", f"--net={netns}", "--", *argv], capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.stdout

    def logs_dir(self) -> Path:
        return self.state_dir / "clusters" / self.name / "logs"
