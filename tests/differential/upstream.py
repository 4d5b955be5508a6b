"""The real kube-scheduler as a process whose log tells what it thought of each node.

At the verbosity used here, schedule_one.go logs the score of each plugin for each feasible node, weight included, and
eventhandlers.go each object that has reached the scheduler's cache. That second part is how the harness knows that
upstream has seen a cluster before it asks about a Pod.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from nodewright.controlplane.cluster import LocalCluster

SCHEDULER_NAME = "default-scheduler"
QPS = 5000
TIMEOUT = 30.0

# The region of nodes that are complete. A change of region is the one change of a node that the log surely shows, so
# every change of a node comes with one.
REGION, MADE = "topology.kubernetes.io/region", "made"

_LINE = re.compile(r'^[IWEF]\d{4} [^\]]*\] "((?:[^"\\]|\\.)*)"(.*)$')
_PAIR = re.compile(r' (\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))')

# (message, object): `("Add event for node", "n1")`, `("Delete event for scheduled pod", "blue/p1")`
Seen = tuple[str, str]


class Trace(msgspec.Struct):
    """What the log says about a Pod's last attempt. Scores have their weight; without a choice there are none."""

    plugins: dict[str, dict[str, int]] = {}
    totals: dict[str, int] = {}
    # How many nodes passed all filters; None until the Pod is bound.
    feasible: int | None = None
    # Pods evicted for this one, and how far that is. Those that end already are not evicted again.
    victims: list[str] = []
    is_preempting: bool = False
    is_preempted: bool = False


class Log:
    """Reads a growing log file, each line once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""
        self.traces: dict[str, Trace] = {}
        self.seen: Counter[Seen] = Counter()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def forget(self) -> None:
        """Drop what is known, to begin anew."""
        self.read()
        self.traces.clear()
        self.seen.clear()

    def read(self) -> None:
        """Take in what has been written since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            if match := _LINE.match(line.decode(errors="replace")):
                self._take(match[1], {key: quoted or plain for key, quoted, plain in _PAIR.findall(match[2])})

    def _take(self, message: str, pairs: dict[str, str]) -> None:
        if " event for " in message:
            self.seen[message, pairs.get("pod") or pairs.get("node", "")] += 1
        elif message == "Added node to NodeTree":
            self.seen[pairs["zone"].partition(":")[0], pairs["node"]] += 1
        elif message == "Attempting to schedule pod":
            self.traces[pairs["pod"]] = Trace()
        elif message == "Plugin scored node for pod":
            self.traces[pairs["pod"]].plugins.setdefault(pairs["node"], {})[pairs["plugin"]] = int(pairs["score"])
        elif message == "Calculated node's final score for pod":
            self.traces[pairs["pod"]].totals[pairs["node"]] = int(pairs["score"])
        elif message == "Successfully bound pod to node":
            self.traces[pairs["pod"]].feasible = int(pairs["feasibleNodes"])
        elif message == "Start the preemption asynchronously":
            self.traces[pairs["preemptor"]].is_preempting = True
        elif message == "Preemptor Pod preempted victim Pod":
            self.traces[pairs["preemptor"]].victims.append(pairs["victim"])
        elif message == "Async Preemption finished completely":
            self.traces[pairs["preemptor"]].is_preempted = True


class KubeScheduler:
    """A running kube-scheduler: upstream's defaults, every node looked at, no client-side rate limit."""

    def __init__(self, binary: Path, cluster: LocalCluster, folder: Path) -> None:
        self._binary = binary
        self._cluster = cluster
        self._folder = folder
        self._log_file = folder / "kube-scheduler.log"

    def __enter__(self) -> KubeScheduler:
        config = self._folder / "kube-scheduler.json"
        settings = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "percentageOfNodesToScore": 100,
            "clientConnection": {"kubeconfig": str(self._cluster.kubeconfig), "qps": QPS, "burst": QPS},
        }
        config.write_bytes(msgspec.json.encode(settings))
        argv = [
            *(str(self._binary), f"--config={config}", "--secure-port=0"),
            "--vmodule=schedule_one=10,eventhandlers=5,node_tree=2,preemption=5,executor=5",
        ]
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.log = Log(self._log_file)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.log.close()

    async def until_seen(self, wanted: Iterable[Seen]) -> None:
        """Wait until the log tells of all these events since `log.forget`, of each as often as it is named.

        Raises TimeoutError, naming those that are missing.
        """
        expected = Counter(wanted)
        await self._until(lambda: expected <= self.log.seen, lambda: f"not seen: {expected - self.log.seen}")

    async def trace(self, pod: str, ready: Callable[[Trace], bool], timeout: float = TIMEOUT) -> Trace:
        """What the log says about a Pod (namespace/name), once `ready` is true of it."""
        traces = self.log.traces
        await self._until(
            lambda: pod in traces and ready(traces[pod]), lambda: f"{pod}: only {traces.get(pod)}", timeout
        )
        return traces[pod]

    async def _until(
        self, complete: Callable[[], bool], complaint: Callable[[], str], timeout: float = TIMEOUT
    ) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            self.log.read()
            if complete():
                return
            if self._process.poll() is not None:
                tail = self._log_file.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"kube-scheduler ended with {self._process.returncode}:\n{tail}")
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"kube-scheduler's log: {complaint()}")
            await asyncio.sleep(0.001)
