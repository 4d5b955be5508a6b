"""The node agents that a benchmark compares: ours, and kubelet with Debian's containerd, each as a Node of one cluster.

Both work on the same disk, in the network and mount namespaces that the benchmark has made for itself, with cgroups of
their own, and are removed with all that they made.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.certificates import Certificates
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.processes import memory
from nodewright.controlplane.slots import NodeHost
from nodewright_agent.runtime import cgroups, mounts
from nodewright_agent.runtime.cleanup import purge
from support import debian_containerd
from support.agent_node import AgentNode, free_port, load_demo_image, wait_until

NODE_IP = "10.222.9.1"
"""kubelet takes no loopback address; a bridge in the benchmark's network namespace has this one."""
TICKS = os.sysconf("SC_CLK_TCK")


class Contender(Protocol):
    """A node: to be started, looked at, and ended."""

    name: str
    """The contender's name in figures."""
    node: str
    """The Node's name."""

    def start(self) -> None:
        """Start its processes; they register the Node."""

    def processes(self) -> dict[str, list[int]]:
        """The pids that belong to it now, by part; the containers' own processes are not among them."""

    def log(self) -> str:
        """The end of its logs, for a benchmark that fails."""

    def close(self) -> None:
        """End everything, its containers too, and remove what it made."""


class Nodewright:
    """Our agent, with the service proxy inside."""

    name = "nodewright"

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        """Prepare a node below ``directory``."""
        self._agent = AgentNode(cluster, directory, proxy_mode="auto", max_pods=250)
        self.node = self._agent.name
        load_demo_image(self._agent.images, directory / "demo.tar")

    def start(self) -> None:
        """Start the agent."""
        self._agent.start()

    def processes(self) -> dict[str, list[int]]:
        """The agent and its containers' monitors."""
        assert self._agent.process is not None
        run = str(self._agent.run)
        return {"agent": [self._agent.process.pid], "monitors": _with_words(lambda words: _conmon_of(words, run))}

    def log(self) -> str:
        """The end of the agent's log."""
        return self._agent.text()[-6000:]

    def close(self) -> None:
        """Kill the agent and clean up."""
        self._agent.close()


class Kubelet:
    """kubelet and Debian's containerd, without client-side limits, with parallel pulls and a CNI bridge."""

    name = "kubelet"

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        """Prepare both below ``directory``."""
        self.node = f"kubelet-{os.getpid()}-{time.monotonic_ns() % 100000}"
        self._directory = directory / self.node
        self._directory.mkdir(parents=True)
        self._cgroup = f"/nodewright-bench-{self.node}"
        self._socket = self._directory / "containerd.sock"
        self._children: list[subprocess.Popen[bytes]] = []
        Certificates(cluster.layout, cluster.state).ensure_nodes([NodeHost(2, self.node, "", "127.0.0.1")])
        self._cluster = cluster
        self._binary = Assets().obtain(["kubelet"])["kubelet"]

    def start(self) -> None:
        """Start containerd, give it the images, then kubelet."""
        hierarchies = cgroups.detect()
        hierarchies.create(self._cgroup)
        if subprocess.run(["ip", "link", "show", "bench0"], capture_output=True).returncode != 0:
            subprocess.run(["ip", "link", "add", "bench0", "up", "type", "bridge"], check=True)
            subprocess.run(["ip", "address", "add", f"{NODE_IP}/24", "dev", "bench0"], check=True)
        config = debian_containerd.configure(
            self._directory, socket=self._socket, bridge="kubelet0", cidr="10.222.8.0/24", ports=False
        )
        self._spawn("containerd", "containerd", "--config", str(config))
        wait_until("containerd's socket", self._socket.exists)
        debian_containerd.import_images(self._directory, self._socket)
        argv = [
            str(self._binary),
            f"--config={self._kubelet_config()}",
            f"--kubeconfig={self._cluster.layout.kubeconfig(f'node-{self.node}')}",
            f"--root-dir={self._directory / 'kubelet'}",
            f"--hostname-override={self.node}",
            f"--node-ip={NODE_IP}",
        ]
        self._spawn("kubelet", *argv)

    def processes(self) -> dict[str, list[int]]:
        """kubelet, containerd, and for each sandbox its shim and its pause process."""
        runtime, kubelet = self._children
        shims = _with_words(lambda words: words[0].endswith(b"containerd-shim-runc-v2") and self._mine(words))
        pauses = [pid for shim in shims for pid in _children(shim) if _comm(pid) == "pause"]
        return {"kubelet": [kubelet.pid], "containerd": [runtime.pid], "shims": shims, "pauses": pauses}

    def close(self) -> None:
        """Kill kubelet, then its containers' processes and shims, then containerd; remove cgroups and files."""
        for child in reversed(self._children[1:]):
            _end(child)
        hierarchies = cgroups.detect()
        hierarchies.kill(self._cgroup)
        shims = _with_words(lambda words: words[0].endswith(b"containerd-shim-runc-v2") and self._mine(words))
        for child in self._children[:1]:
            _end(child)
        for pid in shims:
            os.kill(pid, signal.SIGKILL)
        self._children.clear()
        run = self._directory / "run"
        purge(run_dir=run, state_dir=run, cgroup_root=self._cgroup, cgroups=hierarchies)
        mounts.unmount_below(self._directory)  # kubelet's volumes: the benchmark's directory could not be removed

    def _mine(self, words: list[bytes]) -> bool:
        return any(str(self._socket).encode() in word for word in words)

    def _spawn(self, name: str, *argv: str) -> None:
        with (self._directory / f"{name}.log").open("ab") as log:
            self._children.append(
                subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory)
            )

    def log(self) -> str:
        """The end of both logs."""
        texts = [f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self._directory.glob("*.log"))]
        return "\n".join(texts)

    def _kubelet_config(self) -> Path:
        pki = self._cluster.layout.pki
        settings: dict[str, Any] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": str(pki / f"node-{self.node}-server.crt"),
            "tlsPrivateKeyFile": str(pki / f"node-{self.node}-server.key"),
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 500,
            "kubeAPIBurst": 500,
            "maxPods": 250,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "100Mi"},
            "address": "127.0.0.1",
            "port": free_port(),
            "healthzPort": 0,
            "readOnlyPort": 0,
            "podLogsDir": str(self._directory / "pods-logs"),
            "resolvConf": "/etc/resolv.conf",
        }
        path = self._directory / "kubelet.yaml"
        path.write_text(json.dumps(settings))
        return path


def cost(contender: Contender) -> tuple[dict[str, int], float]:
    """PSS in bytes by part, and the CPU seconds that all its processes have taken so far."""
    found = contender.processes()
    sizes = {part: sum(memory(pid) or 0 for pid in pids) for part, pids in found.items()}
    return sizes, sum(_cpu(pid) for pids in found.values() for pid in pids)


def missing() -> list[str]:
    """The programs of upstream's side that this machine lacks."""
    return debian_containerd.missing(["bridge", "host-local", "loopback"])


def _conmon_of(words: list[bytes], run: str) -> bool:
    return words[0].endswith(b"conmon") and any(word.startswith(run.encode()) for word in words)


def _pids() -> Iterable[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _with_words(wanted: Any) -> list[int]:
    """The pids of processes whose command line ``wanted`` accepts."""
    found = []
    for pid in _pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if words[0] and wanted(words):
            found.append(pid)
    return found


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _cpu(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, words[11:15])) / TICKS  # its own and its ended children's


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
