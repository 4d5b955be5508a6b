"""The schedulers that a benchmark compares, as processes, and what they cost."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from nodewright.controlplane.cluster import LocalCluster

SCHEDULER_NAME = "default-scheduler"
# So high that the client-side limit never takes part.
QPS = 5000

# The command line for a cluster, with a folder for files of its own, and the port where it serves metrics (0: nowhere).
Argv = Callable[[LocalCluster, Path, int], list[str]]


class Contender(msgspec.Struct, frozen=True):
    """A scheduler that takes part: how to start it, and where it tells about itself."""

    name: str
    argv: Argv
    scheme: str

    def metrics_url(self, port: int) -> str:
        """Where its metrics are."""
        return f"{self.scheme}://127.0.0.1:{port}/metrics"


def kube_scheduler(binary: Path, *, all_nodes: bool = False) -> Argv:
    """Upstream's, with its defaults but for the client's rate limit, and without waiting for a Lease.

    By default it stops looking once it has found enough nodes (of 1000: 420, of 5000: 500); with `all_nodes` it looks
    at every node, as ours always does.
    """

    def argv(cluster: LocalCluster, folder: Path, port: int = 0) -> list[str]:
        config = folder / "kube-scheduler.json"
        settings = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"kubeconfig": str(cluster.kubeconfig), "qps": QPS, "burst": QPS},
        }
        if all_nodes:
            settings["percentageOfNodesToScore"] = 100
        config.write_bytes(msgspec.json.encode(settings))
        serving = [
            *("--bind-address=127.0.0.1", f"--secure-port={port}"),
            "--authorization-always-allow-paths=/healthz,/metrics",
        ]
        return [str(binary), f"--config={config}", *serving]

    return argv


def nodewright(cluster: LocalCluster, folder: Path, port: int = 0) -> list[str]:
    """Ours, with its defaults, and without waiting for a Lease."""
    return [
        *(sys.executable, "-m", "nodewright.cli.main", "scheduler"),
        *("--kubeconfig", str(cluster.kubeconfig)),
        *("--scheduler-name", SCHEDULER_NAME),
        "--no-leader-elect",
        *("--metrics-bind", f"127.0.0.1:{port}" if port else ""),
    ]


class Usage(msgspec.Struct):
    """CPU seconds spent, and memory in MiB: peak resident, and proportional at the moment of asking."""

    cpu: float
    peak_rss: float
    pss: float


def cpu(pid: int) -> float:
    """CPU seconds that a process has spent so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def usage(pid: int) -> Usage:
    """What a process has used so far."""
    return Usage(cpu(pid), _mib(pid, "status", "VmHWM"), _mib(pid, "smaps_rollup", "Pss"))


def _mib(pid: int, file: str, field: str) -> float:
    match = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


class Ended(Exception):
    """A scheduler has ended by itself."""


class Running:
    """A scheduler that runs while the context lasts."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self._argv = argv
        self.log = log

    def __enter__(self) -> Running:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def require_alive(self) -> None:
        """Raise Ended, with the end of its log, when it has ended by itself."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Ended(f"{self._argv[0]} ended with {self.process.returncode}:\n{tail}")
