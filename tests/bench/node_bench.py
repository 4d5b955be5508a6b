"""Our node agent and kubelet + containerd in turns, as Nodes of one cluster, on the same machine.

    .venv/bin/python tests/bench/node_bench.py [--rounds 2] [--pods 20] [--burst 30] [--rest 100] [--only NAME] [--json]

Each turn starts a node from nothing and measures:

    start   API create -> Running and ready observed through a watch, one Pod after another, image at hand
    delete  API delete -> gone, with a grace of 1 s, of a process that ignores SIGTERM
    burst   that many Pods created at once -> all Running and ready
    memory  PSS of all the node's own processes without Pods, and what each Pod adds (monitors, shims, pauses included)
    rest    CPU of the same processes while that many Pods do nothing, in percent of one core

The Pods have their nodeName set (no scheduler in the path), one container that sleeps, and no ServiceAccount token.
Runs as root in a network and a mount namespace of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.node_contenders import Contender, Kubelet, Nodewright, cost, missing
from bench.pod_start_bench import ready, service_account
from bench.run import NODE_FIGURES
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.objects import Pod
from nodewright.kube.resources import PODS
from support.agent_node import IMAGE
from support.network import own_namespace

CONTENDERS: dict[str, Callable[[LocalCluster, Path], Contender]] = {"nodewright": Nodewright, "kubelet": Kubelet}
WARM_UP = 3
NODE_DIRECTORIES = ("/var/lib/kubelet", "/var/log/containers")
"""Where kubelet writes whatever it is told; covered in the benchmark's own mount namespace."""


def manifest(name: str, node: str) -> dict[str, Any]:
    """A Pod that sleeps; as its container's first process it does not heed SIGTERM."""
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


class Watcher:
    """Notes when each Pod is seen Running and ready, and when it is gone."""

    def __init__(self, client: Client) -> None:
        """Watch through ``client``."""
        self._client = client
        self._running: dict[str, asyncio.Event] = {}
        self._gone: dict[str, asyncio.Event] = {}

    def expect(self, name: str) -> None:
        """Look out for a Pod that is about to be made."""
        self._running[name], self._gone[name] = asyncio.Event(), asyncio.Event()

    async def running(self, *names: str) -> None:
        """Wait until all are Running and ready."""
        await self._all(self._running, names, "did not become ready")

    async def gone(self, *names: str) -> None:
        """Wait until all are gone."""
        await self._all(self._gone, names, "did not go")

    async def _all(self, events: dict[str, asyncio.Event], names: Sequence[str], otherwise: str) -> None:
        try:
            await asyncio.wait_for(asyncio.gather(*(events[name].wait() for name in names)), 120)
        except TimeoutError:
            left = [name for name in names if not events[name].is_set()]
            raise AssertionError(f"{len(left)} of {len(names)} Pods {otherwise}: {left[:5]}") from None

    async def run(self) -> None:
        """Follow all Pods, for as long as it takes: a single watch ends after some minutes."""
        cache = WatchCache(self._client, PODS, type=Pod, namespace="default")
        cache.add_handler(self._note)
        await cache.run()

    def _note(self, old: Pod | None, new: Pod | None) -> None:
        if new is None:
            if old is not None and old.metadata.name in self._gone:
                self._gone[old.metadata.name].set()
            return
        status = new.status
        containers = status.container_statuses
        ready = status.phase == "Running" and containers and all(entry.ready for entry in containers)
        if ready and new.metadata.name in self._running:
            self._running[new.metadata.name].set()


class Round:
    """One contender's turn."""

    def __init__(self, contender: Contender, client: Client, arguments: argparse.Namespace) -> None:
        """Measure ``contender`` through ``client``."""
        self._contender, self._client, self._arguments = contender, client, arguments
        self._watcher = Watcher(client)
        self._number = 0

    async def measure(self) -> dict[str, Any]:
        """Return the round's figures."""
        await ready(self._client, self._contender.node)
        watching = asyncio.create_task(self._watcher.run())
        await asyncio.sleep(2)
        try:
            starts, ends = await self._one_by_one(self._arguments.pods)
            burst = await self._burst(self._arguments.burst)
            await asyncio.sleep(self._arguments.settle)
            before, _ = cost(self._contender)
            rest = await self._make(self._arguments.rest)
            await asyncio.sleep(self._arguments.settle)
            after, first = cost(self._contender)
            begun = time.monotonic()
            await asyncio.sleep(self._arguments.watch)
            _, last = cost(self._contender)
            busy = 100 * (last - first) / (time.monotonic() - begun)
            await self._remove(rest)
        finally:
            watching.cancel()
        return {
            "contender": self._contender.name,
            "start": statistics.median(starts),
            "start_p90": sorted(starts)[int(len(starts) * 0.9)],
            "delete": statistics.median(ends),
            "burst": burst,
            "memory": sum(before.values()) / 1e6,
            "memory_parts": {part: size / 1e6 for part, size in before.items()},
            "memory_per_pod": (sum(after.values()) - sum(before.values())) / 1e6 / len(rest),
            "rest_parts": {part: size / 1e6 for part, size in after.items()},
            "rest": busy,
        }

    async def _one_by_one(self, count: int) -> tuple[list[float], list[float]]:
        starts, ends = [], []
        for number in range(count + WARM_UP):
            begun = time.perf_counter()
            names = await self._make(1)
            started = time.perf_counter()
            await self._remove(names)
            if number >= WARM_UP:
                starts.append(started - begun)
                ends.append(time.perf_counter() - started)
            await asyncio.sleep(0.2)  # what follows a deletion does not burden the next start
        return starts, ends

    async def _burst(self, count: int) -> float:
        begun = time.perf_counter()
        names = await self._make(count)
        taken = time.perf_counter() - begun
        await self._remove(names)
        return taken

    async def _make(self, count: int) -> list[str]:
        names = [f"{self._contender.node}-{self._number + i}" for i in range(count)]
        self._number += count
        for name in names:
            self._watcher.expect(name)
        await asyncio.gather(
            *(self._client.create(PODS, manifest(name, self._contender.node), "default") for name in names)
        )
        await self._watcher.running(*names)
        return names

    async def _remove(self, names: list[str]) -> None:
        await asyncio.gather(*(self._client.delete(PODS, name, "default") for name in names))
        await self._watcher.gone(*names)


async def turn(contender: Contender, cluster: LocalCluster, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a contender that has been started."""
    async with Client(load(cluster.kubeconfig)) as client:
        return await Round(contender, client, arguments).measure()


def run(directory: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds, in turns, on one control plane."""
    binaries = Assets().obtain(["etcd", "kube-apiserver"])
    cluster = LocalCluster.ensure(Layout(directory / "c", "bench"))
    rounds = []
    try:
        cluster.prepare()
        cluster.start_etcd(binaries["etcd"])
        cluster.start_apiserver(binaries["kube-apiserver"])
        apply_all(cluster.kubeconfig)
        service_account(cluster)
        names = [arguments.only] if arguments.only else list(CONTENDERS)
        for number in range(arguments.rounds):
            # The one that begins changes from round to round.
            for name in names if number % 2 == 0 else reversed(names):
                contender = CONTENDERS[name](cluster, directory)
                try:
                    contender.start()
                    found = asyncio.run(turn(contender, cluster, arguments))
                except BaseException:
                    print(contender.log(), file=sys.stderr)
                    raise
                finally:
                    contender.close()
                print(f"round {number + 1}: {json.dumps(found)}", file=sys.stderr, flush=True)
                rounds.append(found)
    finally:
        cluster.stop()
    return rounds


def own_mounts() -> None:
    """Give this process a mount namespace in which kubelet's fixed directories are empty."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for path in NODE_DIRECTORIES:
        Path(path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "bench", path], check=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--burst", type=int, default=30)
    parser.add_argument("--rest", type=int, default=100)
    parser.add_argument("--settle", type=float, default=30, help="seconds of rest before memory is read")
    parser.add_argument("--watch", type=float, default=60, help="seconds over which the CPU at rest is counted")
    parser.add_argument("--only", choices=sorted(CONTENDERS))
    parser.add_argument("--json", action="store_true", help="print the rounds as JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.only != "nodewright" and (lacking := missing()):
        sys.exit(f"missing: {', '.join(lacking)} (Debian: containerd, containernetworking-plugins, gcc)")
    own_mounts()
    with own_namespace(), tempfile.TemporaryDirectory(prefix="nw-bench-", ignore_cleanup_errors=True) as temporary:
        rounds = run(Path(temporary), arguments)
    if arguments.json:
        print(json.dumps({"rounds": rounds}))
        return
    names = list(dict.fromkeys(found["contender"] for found in rounds))
    print(f"{'figure':<54}" + "".join(f"{name:>14}" for name in names) + f"{'ratio':>8}")
    for title, field, form in NODE_FIGURES:
        values = [statistics.median(found[field] for found in rounds if found["contender"] == name) for name in names]
        ratio = f"{values[0] / values[1]:.2f}" if len(values) > 1 and values[1] else "-"
        print(f"{title:<54}" + "".join(f"{form.format(value):>14}" for value in values) + f"{ratio:>8}")


if __name__ == "__main__":
    main()
