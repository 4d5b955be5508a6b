"""API create -> Running observed through a watch, and delete -> gone, for one Pod after another on one node.

    python tests/bench/pod_start_bench.py [--pods 30] [--profile]

The Pod has its nodeName set (no scheduler), one container from a cached image, and a grace period of 1 s that its
process does not wait for. Runs as root in a network namespace of its own, with real sandboxes, links and runc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import NODES, PODS
from support.agent_node import IMAGE, AgentNode, load_demo_image
from support.network import own_namespace

WARM_UP = 3


def manifest(name: str, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "main",
                    "image": IMAGE,
                    "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait $!"],
                }
            ],
        },
    }


class Watcher:
    """Notes when each Pod was first seen Running (and ready), and when it was gone."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.running: dict[str, asyncio.Event] = {}
        self.gone: dict[str, asyncio.Event] = {}

    def expect(self, name: str) -> None:
        self.running[name], self.gone[name] = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        listed = await self._client.list(PODS, "default")
        async for event in self._client.watch(PODS, "default", type=dict, resource_version=listed.resource_version):
            name = event.object["metadata"].get("name", "")
            if name not in self.running:
                continue
            if event.type == "DELETED":
                self.gone[name].set()
            elif event.object["status"].get("phase") == "Running":
                self.running[name].set()


async def measure(cluster: LocalCluster, node: str, count: int) -> tuple[list[float], list[float]]:
    starts, ends = [], []
    async with Client(load(cluster.kubeconfig)) as client:
        await ready(client, node)
        watcher = Watcher(client)
        task = asyncio.create_task(watcher.run())
        await asyncio.sleep(0.5)
        for number in range(count + WARM_UP):
            name = f"bench-{number}"
            watcher.expect(name)
            begun = time.perf_counter()
            await client.create(PODS, manifest(name, node), "default")
            await asyncio.wait_for(watcher.running[name].wait(), 30)
            started = time.perf_counter()
            await client.delete(PODS, name, "default")
            await asyncio.wait_for(watcher.gone[name].wait(), 30)
            ended = time.perf_counter()
            if number >= WARM_UP:
                starts.append(started - begun)
                ends.append(ended - started)
            await asyncio.sleep(0.2)  # what follows a deletion does not burden the next start
        task.cancel()
    return starts, ends


async def ready(client: Client, node: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            found = await client.get(NODES, node)
        except NotFound:
            found = {}
        conditions = {c["type"]: c["status"] for c in found.get("status", {}).get("conditions", [])}
        if conditions.get("Ready") == "True":
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"node {node} did not become Ready")


def show(title: str, values: list[float]) -> None:
    ordered = sorted(values)
    p50, p90 = statistics.median(ordered), ordered[int(len(ordered) * 0.9)]
    print(f"{title:<28} p50 {p50 * 1000:7.1f} ms   p90 {p90 * 1000:7.1f} ms   min {ordered[0] * 1000:7.1f} ms")


def pss(pid: int) -> int:
    """The proportional set size of a process, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def trace(node: AgentNode, uid_file: Path) -> None:
    """Print one Pod's steps in milliseconds from the first."""
    from datetime import datetime

    steps = [json.loads(line) for line in uid_file.read_text().splitlines()]
    first = datetime.fromisoformat(steps[0]["time"])
    for step in steps:
        print(f"  {(datetime.fromisoformat(step['time']) - first).total_seconds() * 1000:7.1f} ms  {step['step']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print seconds as JSON")
    parser.add_argument("--profile", metavar="FILE", help="write the agent's cProfile there")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with own_namespace(), tempfile.TemporaryDirectory(prefix="nw-bench-") as temporary:
        run(Path(temporary), arguments.pods, arguments.profile, as_json=arguments.json)


def run(directory: Path, pods: int, profile: str | None, *, as_json: bool) -> None:
    binaries = Assets().obtain(["etcd", "kube-apiserver"])
    cluster = LocalCluster.ensure(Layout(directory / "c", "bench"))
    node: AgentNode | None = None
    try:
        cluster.prepare()
        cluster.start_etcd(binaries["etcd"])
        cluster.start_apiserver(binaries["kube-apiserver"])
        apply_all(cluster.kubeconfig)
        node = AgentNode(cluster, directory)
        load_demo_image(node.images, directory / "demo.tar")
        service_account(cluster)
        if profile:
            node.start(main=PROFILED, environment={"NW_PROFILE": profile})
        else:
            node.start()
        starts, ends = asyncio.run(measure(cluster, node.name, pods))
        if as_json:
            print(json.dumps({"create": starts, "delete": ends}))
            return
        traces = sorted((node.state / "trace").glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        print(f"{pods} Pods, one after another, cached image")
        show("create -> Running observed", starts)
        show("delete -> gone", ends)
        assert node.process is not None
        print(f"{'agent, memory at rest (PSS)':<28} {pss(node.process.pid) / 2**20:7.1f} MiB")
        print("the last Pod's steps on the node:")
        trace(node, traces[-1])
        node.stop()
    except BaseException:
        if node is not None:
            print(node.text()[-6000:], file=sys.stderr)
        raise
    finally:
        if node is not None:
            node.close()
        cluster.stop()


PROFILED = """
import cProfile, os
from nodewright.cli.main import main
profile = cProfile.Profile()
profile.enable()
import sys
code = main(sys.argv[1:])
profile.disable()
profile.dump_stats(os.environ["NW_PROFILE"])
sys.exit(code)
"""


def service_account(cluster: LocalCluster) -> None:
    """Without kube-controller-manager nobody makes it, and admission wants it."""
    from nodewright.kube.errors import AlreadyExists
    from nodewright.kube.resources import SERVICEACCOUNTS

    async def make() -> None:
        async with Client(load(cluster.kubeconfig)) as client:
            try:
                await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
            except AlreadyExists:
                pass

    asyncio.run(make())


if __name__ == "__main__":
    main()
