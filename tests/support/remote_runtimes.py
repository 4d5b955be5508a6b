"""Runtimes behind a CRI socket that an agent drives in tests: `nodewright cri`, and Debian's containerd with CNI.

Each is started in the caller's network namespace, with directories and cgroups of its own, and removed with all that
it made.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Protocol

import grpc

from nodewright_agent.cri import wire
from nodewright_agent.runtime import cgroups, cleanup, mounts
from support import debian_containerd
from support.agent_node import load_demo_image, wait_until

MAIN = "from nodewright.cli.main import run; run()"


class RemoteRuntime(Protocol):
    """A runtime: to be started, ended, and removed."""

    name: str
    """As Version tells it."""
    cidr: str
    """Where its pods' addresses are from."""
    socket: Path
    process: subprocess.Popen[bytes] | None

    def start(self) -> None:
        """Start it, and wait until it answers."""

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; containers go on."""

    def purge(self) -> None:
        """End everything, its containers too, and remove what it made."""

    def text(self) -> str:
        """What it has logged."""


class NodewrightCri:
    """Our own."""

    name, cidr = "nodewright", "10.222.8.0/24"

    def __init__(self, directory: Path) -> None:
        tag = uuid.uuid4().hex[:8]
        self.run, self.root = Path("/run/nodewright-test") / f"c{tag}", directory / "root"
        self.socket, self.log = directory / "cri.sock", directory / "cri.log"
        self.cgroup = f"/nodewright-test-cri-{tag}"
        self.images = directory / "images"
        self.process: subprocess.Popen[bytes] | None = None
        load_demo_image(self.images, directory / "demo.tar")

    def start(self) -> None:
        argv = [sys.executable, "-c", MAIN, "cri", f"--socket=unix://{self.socket}", f"--root={self.root}"]
        argv += [f"--run-dir={self.run}", f"--image-root={self.images}", f"--cgroup-root={self.cgroup}"]
        argv += ["--runtime-handler=other=runc"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(f"the socket of nodewright cri\n{self.text()}", self.socket.exists, 60)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process = _stopped(self.process, how)
        self.socket.unlink(missing_ok=True)

    def purge(self) -> None:
        self.stop(signal.SIGKILL)
        hierarchies = cgroups.detect()
        cleanup.purge(run_dir=self.run, state_dir=self.root, cgroup_root=self.cgroup, cgroups=hierarchies)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


class Containerd:
    """Debian's, with the CNI plugins bridge, host-local, portmap and loopback."""

    name, cidr = "containerd", "10.222.9.0/24"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "containerd.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._log = directory / "containerd.log"

    @staticmethod
    def missing() -> list[str]:
        """What of it this machine lacks."""
        return debian_containerd.missing(["bridge", "host-local", "portmap"])

    def start(self) -> None:
        first = not (self.directory / "containerd.toml").exists()
        config = debian_containerd.configure(
            self.directory, socket=self.socket, bridge="remote0", cidr=self.cidr, ports=True
        )
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["containerd", "--config", str(config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
            )  # fmt: skip
        wait_until("containerd answers", self._answers, 60)
        if first:
            debian_containerd.import_images(self.directory, self.socket)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process = _stopped(self.process, how)

    def purge(self) -> None:
        if not (self.directory / "containerd.toml").exists():
            return
        if self.process is None:
            self.start()
        for sandbox in call(self.socket, "ListPodSandbox").items:  # it alone knows the namespaces that it pinned
            call(self.socket, "StopPodSandbox", pod_sandbox_id=sandbox.id)
            call(self.socket, "RemovePodSandbox", pod_sandbox_id=sandbox.id)
        self.stop(signal.SIGKILL)
        for pid in _with_argument("containerd-shim-runc-v2", str(self.socket)):
            os.kill(pid, signal.SIGKILL)
        mounts.unmount_below(self.directory)

    def text(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.text()[-3000:]
        argv = ["ctr", f"--address={self.socket}", "version"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def call(socket: Path, method: str, **fields: Any) -> Any:
    """One call to a runtime. Raises grpc.RpcError."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        made = channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=getattr(wire, f"{method}Request").SerializeToString,
            response_deserializer=getattr(wire, f"{method}Response").FromString,
        )
        return made(getattr(wire, f"{method}Request")(**fields), timeout=120)


def _stopped(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    if process is not None:
        process.send_signal(how)
        process.wait(60)


def _with_argument(program: str, word: str) -> list[int]:
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if words[0].endswith(program.encode()) and any(word.encode() in one for one in words):
            found.append(int(directory.name))
    return found
