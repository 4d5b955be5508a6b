"""A node agent as a process of its own against a running control plane, for integration tests and benchmarks.

Everything that it makes on the host is below names of its own, and `close` removes it, however the test ended.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from nodewright.controlplane.certificates import Certificates
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.slots import NodeHost
from nodewright_agent.runtime import cgroups, mounts
from nodewright_agent.runtime.cleanup import purge
from nodewright_agent.runtime.images import demo
from nodewright_agent.runtime.images.store import ImageStore

IMAGE = demo.DEMO_IMAGE
MAIN = "from nodewright.cli.main import run; run()"


class AgentNode:
    """One node: its settings, its directories, and the agent's process."""

    def __init__(self, cluster: LocalCluster, directory: Path, **settings: Any) -> None:
        tag = uuid.uuid4().hex[:8]
        self.name = f"node-{tag}"
        self.state = directory / self.name
        self.run = Path("/run/nodewright-test") / tag
        self.cgroup_root = f"/nodewright-test-{tag}"
        self.log = directory / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        host = NodeHost(1, self.name, "", "127.0.0.1")
        Certificates(cluster.layout, cluster.state).ensure_nodes([host])
        pki = cluster.layout.pki
        self.images = directory / "images"
        self.settings = {
            "node_name": self.name,
            "kubeconfig": str(cluster.layout.kubeconfig(f"node-{self.name}")),
            "state_dir": str(self.state),
            "run_dir": str(self.run),
            "log_links_dir": str(self.state / "log-links"),
            "image_root": str(self.images),
            "cgroup_root": self.cgroup_root,
            "node_ip": "127.0.0.1",
            "port": free_port(),
            "healthz_port": free_port(),
            "proxy_mode": "none",
            "pod_cidr": "10.222.7.0/24",
            "cluster_cidr": "10.222.0.0/16",
            "tls_cert_file": str(pki / f"node-{self.name}-server.crt"),
            "tls_key_file": str(pki / f"node-{self.name}-server.key"),
            "client_ca_file": str(pki / "ca.crt"),
            **settings,
        }

    def start(self, *, main: str = MAIN, environment: dict[str, str] | None = None) -> None:
        """Start the agent; `main` is the program text, for tests that replace a part."""
        self.state.mkdir(parents=True, exist_ok=True)
        config = self.state / "agent.json"
        config.write_text(json.dumps(self.settings))
        argv = [sys.executable, "-c", main, "agent", f"--config={config}"]
        with self.log.open("ab") as log:
            env = {**os.environ, **(environment or {})}
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the agent and return its exit code; the pods go on."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def close(self) -> None:
        """Kill the agent and undo everything on the host."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        purge(run_dir=self.run, state_dir=self.run, cgroup_root=self.cgroup_root, cgroups=cgroups.detect())
        mounts.unmount_below(self.state)
        with contextlib.suppress(OSError):  # another node of the same tests is there still
            self.run.parent.rmdir()

    def text(self) -> str:
        """What the agent has logged."""
        return self.log.read_text() if self.log.exists() else ""


def load_demo_image(root: Path, archive: Path) -> None:
    """Make the demo image and load it into the store at `root`."""
    demo.write(archive)

    async def load() -> None:
        store = ImageStore(root)
        await store.load(archive)
        await store.close()

    asyncio.run(load())


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, predicate: Any, timeout: float = 30.0, pause: float = 0.05) -> Any:
    """Wait for a true answer; raise with `what` when none comes."""
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s for: {what}")
        time.sleep(pause)
