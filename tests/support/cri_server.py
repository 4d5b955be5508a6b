"""`nodewright cri` in a network namespace of its own, driven by upstream's crictl and by a gRPC client of the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from nodewright_agent.cri import wire
from nodewright_agent.runtime import cgroups, cleanup, mountinfo, processes

IMAGE = "localhost/nodewright-demo:1"
PATIENCE = 120.0


class CriServer:
    """One server: its directories, its process, and what is asked of it."""

    def __init__(self, work: Path, crictl: Path) -> None:
        self.name = f"c{uuid.uuid4().hex[:8]}"
        self.work, self._crictl = work, crictl
        self.run = Path(f"/run/nodewright-test/{self.name}")
        self.root, self.images, self.logs = work / "root", work / "images", work / "logs"
        self.socket = work / "cri.sock"
        self.cgroup_root = f"/nodewright-{self.name}"
        # The machine's own network is never touched: a process that sleeps holds another one.
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._own_network()
        self.process: subprocess.Popen[bytes] | None = None

    def _own_network(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        subprocess.run(self.inside("ip", "link", "set", "lo", "up"), check=True)

    def inside(self, *words: str) -> list[str]:
        """A command line that runs in the server's network."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *words]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        argv = [sys.executable, "-m", "nodewright.cli.main", "cri", "--socket", f"unix://{self.socket}"]
        argv += ["--root", str(self.root), "--run-dir", str(self.run), "--image-root", str(self.images)]
        argv += ["--cgroup-root", self.cgroup_root, "--pod-cidr", "10.211.0.0/24", "--runtime-handler", "other=runc"]
        with (self.work / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.inside(*argv), stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self.socket.exists():
            assert self.process.poll() is None, (self.work / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; containers go on."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None
            self.socket.unlink(missing_ok=True)

    def crictl(self, *words: str, stdin: str | None = None) -> str:
        """crictl's output; what it says on standard error is in the exception when it fails."""
        config = self.work / "crictl.yaml"
        config.write_text(
            f"runtime-endpoint: unix://{self.socket}\nimage-endpoint: unix://{self.socket}\ntimeout: 60\n"
        )
        argv = self.inside(str(self._crictl), "--config", str(config), *words)
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise AssertionError(f"crictl {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def fetched(self, url: str) -> str:
        """A page, asked for in the server's network; servers in containers may take a moment to listen."""
        script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=30).read().decode())"
        deadline = time.monotonic() + PATIENCE
        while True:
            argv = self.inside(sys.executable, "-c", script, url)
            done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
            if done.returncode == 0:
                return done.stdout
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.1)

    def json(self, *words: str) -> Any:
        """crictl's output in JSON."""
        return json.loads(self.crictl(*words))

    def file(self, document: dict[str, Any]) -> str:
        """A file with this document."""
        path = self.work / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps(document))
        return str(path)

    def pod(self, name: str = "web", **fields: Any) -> dict[str, Any]:
        """A sandbox's config, as crictl reads it."""
        metadata = {"name": name, "namespace": "test", "uid": f"{self.name}-{name}", "attempt": 0}
        return {"metadata": metadata, "log_directory": str(self.logs / name), "linux": {}, **fields}

    def container(self, name: str = "main", *command: str, **fields: Any) -> dict[str, Any]:
        """A container's config, as crictl reads it."""
        config = {"metadata": {"name": name}, "image": {"image": IMAGE}, "log_path": f"{name}.log", "linux": {}}
        return {**config, "command": list(command), **fields}

    def started(self, pod: dict[str, Any], container: dict[str, Any]) -> tuple[str, str]:
        """Run a sandbox with one container; their ids."""
        sandbox = self.crictl("runp", self.file(pod))
        cid = self.crictl("create", sandbox, self.file(container), self.file(pod))
        self.crictl("start", cid)
        return sandbox, cid

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A connection to the socket."""
        with grpc.insecure_channel(f"unix://{self.socket}") as channel:
            yield channel

    def call(self, method: str, service: str = "RuntimeService", **fields: Any) -> Any:
        """One call, with the request's fields. Raises grpc.RpcError."""
        with self.channel() as channel:
            made = channel.unary_unary(
                f"/runtime.v1.{service}/{method}",
                request_serializer=getattr(wire, f"{method}Request").SerializeToString,
                response_deserializer=getattr(wire, f"{method}Response").FromString,
            )
            return made(getattr(wire, f"{method}Request")(**fields), timeout=PATIENCE)

    def leftovers(self) -> dict[str, list[str]]:
        """What exists of its sandboxes and containers on the host; empty when nothing does."""
        hierarchies = cgroups.detect()
        below = self.cgroup_root.strip("/")
        found = {
            "mounts": [point for point in mountinfo.below(mountinfo.read(), self.run) if point.count("/") > 4],
            "cgroups": [
                str(path)
                for mount in hierarchies.hierarchies()
                for path in (mount / below).glob("*/")
                if path.name != "monitors" and path.is_dir()
            ],
            "processes": [str(pid) for pid in processes.with_argument(str(self.run / "rt/c"))],
            "files": [str(path) for kind in ("sandboxes", "containers") for path in (self.root / kind).glob("*")],
            "addresses": [str(path) for path in (self.root / "network/ipam").glob("*")],
        }
        return {kind: values for kind, values in found.items() if values}

    def purge(self) -> None:
        """Stop it, and remove everything of it."""
        self.stop()
        self._holder.kill()
        self._holder.wait()
        hierarchies = cgroups.detect()
        cleanup.purge(run_dir=self.run, state_dir=self.root, cgroup_root=self.cgroup_root, cgroups=hierarchies)
        if not any(self.run.parent.iterdir()):
            self.run.parent.rmdir()


def environment() -> None:
    """Let a process with gRPC start others: they execute at once, there is nothing to be prepared for."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
