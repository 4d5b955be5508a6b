"""kube-controller-manager with the few controllers that a test wants."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from nodewright.controlplane.cluster import LocalCluster

DAEMONSETS = "daemonset-controller"
COLLECTOR = "garbage-collector-controller"


class ControllerManager:
    """A running kube-controller-manager with upstream's defaults, but no limit of requests."""

    def __init__(self, binary: Path, cluster: LocalCluster, log: Path, *controllers: str) -> None:
        self._log = log
        self._argv = [
            *(str(binary), f"--kubeconfig={cluster.kubeconfig}", f"--controllers={','.join(controllers)}"),
            *("--leader-elect=false", "--secure-port=0", "--kube-api-qps=5000", "--kube-api-burst=5000"),
            *("--use-service-account-credentials=false", "--flex-volume-plugin-dir=/nonexistent"),
        ]

    def __enter__(self) -> ControllerManager:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
