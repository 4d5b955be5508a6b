"""Pods bound per second from a backlog, side by side with kube-scheduler, in turns, on the same API server.

    python tests/bench/scheduler_bench.py [--nodes 1000] [--pods 5000] [--rounds 2]

The clock runs from the first binding that a watch shows to the last, for both alike; starting up is shown apart.
kube-scheduler is obtained as the control plane's binaries are: a directory, the cache, a download, or a build.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

import scheduler_lab as lab
from scheduler_contenders import SCHEDULER_NAME, Argv, Running, kube_scheduler, nodewright, usage

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import EVENTS_V1, PODS

TIMEOUT = 300.0


class BoundMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class BoundSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class BoundPod(msgspec.Struct):
    metadata: BoundMeta
    spec: BoundSpec = msgspec.field(default_factory=BoundSpec)


class Round(msgspec.Struct):
    """One drained backlog. Times in seconds, memory in MiB."""

    contender: str
    rate: float
    startup: float
    steady: float
    with_events: float
    cpu: float
    apiserver_cpu: float
    etcd_cpu: float
    peak_rss: float
    pss: float
    events: int
    widest: int


async def observe(client: Client, pods: int, version: str, times: dict[str, float], nodes: dict[str, str]) -> None:
    """Note when a watch shows each Pod with a node for the first time; returns when all have one."""
    while True:  # a busy server ends the watch of a reader that cannot keep up
        watch = client.watch(PODS, lab.NAMESPACE, type=BoundPod, resource_version=version, timeout_seconds=3600)
        async for event in watch:
            version = event.resource_version
            name = event.object.metadata.name
            if event.object.spec.node_name and name not in times:
                times[name] = time.monotonic()
                nodes[name] = event.object.spec.node_name
                if len(times) == pods:
                    return


async def drain(cluster: LocalCluster, client: Client, name: str, argv: Argv, load_: lab.Workload) -> Round:
    """Make a backlog, let the contender place it, and remove everything again."""
    await lab.make_pods(client, load_, SCHEDULER_NAME)
    version = (await client.list(PODS, lab.NAMESPACE, limit=1)).resource_version
    times: dict[str, float] = {}
    nodes: dict[str, str] = {}
    servers = {part: cluster.component(part).running() for part in ("kube-apiserver", "etcd")}
    before = {part: usage(record.pid).cpu for part, record in servers.items() if record}
    folder = cluster.dir / "bench"
    folder.mkdir(exist_ok=True)
    with Running(argv(cluster, folder), folder / f"{name}.log") as running:
        observer = asyncio.create_task(observe(client, load_.pods, version, times, nodes))
        while not observer.done():
            await asyncio.wait({observer}, timeout=1.0)
            running.require_alive()
            if time.monotonic() - running.started > TIMEOUT:
                raise TimeoutError(f"{name}: {len(times)} of {load_.pods} pods bound after {TIMEOUT:.0f} s")
        await observer
        cost = usage(running.process.pid)
        after = {part: usage(record.pid).cpu for part, record in servers.items() if record}
        events, told = await until_told(client, load_.pods)
    ordered = sorted(times.values())
    first, last = ordered[0], ordered[-1]
    tenth = len(ordered) // 10
    result = Round(
        contender=name,
        rate=load_.pods / (last - first),
        startup=first - running.started,
        steady=(len(ordered) - 2 * tenth - 1) / (ordered[-tenth - 1] - ordered[tenth]),
        with_events=load_.pods / (told - first),
        cpu=cost.cpu,
        apiserver_cpu=after["kube-apiserver"] - before["kube-apiserver"],
        etcd_cpu=after["etcd"] - before["etcd"],
        peak_rss=cost.peak_rss,
        pss=cost.pss,
        events=events,
        widest=max(Counter(nodes.values()).values()),
    )
    await lab.remove_pods(client)
    return result


async def until_told(client: Client, wanted: int) -> tuple[int, float]:
    """The number of events posted, and when the last was: as soon as all are there, or no more come for 3 s."""
    seen, changed = -1, time.monotonic()
    while seen < wanted and time.monotonic() - changed < 3.0:
        now = await lab.count(client, EVENTS_V1.path(lab.NAMESPACE))
        if now != seen:
            seen, changed = now, time.monotonic()
        if seen < wanted:
            await asyncio.sleep(0.2)
    return seen, changed


def table(rounds: list[Round], load_: lab.Workload) -> str:
    """The result as text; ratios are of medians, against kube-scheduler where it took part."""
    head = (
        f"{load_.pods} pods on {load_.nodes} nodes, {os.cpu_count()} cores\n"
        "scheduler        pods/s  middle 80%  with events  start s  CPU s  apiserver CPU s  etcd CPU s  "
        "peak RSS MiB  PSS MiB  events  most on a node\n"
    )
    lines = [
        f"{r.contender:<15} {r.rate:>7.0f} {r.steady:>11.0f} {r.with_events:>12.0f} {r.startup:>8.2f} {r.cpu:>6.2f} "
        f"{r.apiserver_cpu:>16.2f} {r.etcd_cpu:>11.2f} {r.peak_rss:>13.0f} {r.pss:>8.0f} {r.events:>7} {r.widest:>15}"
        for r in rounds
    ]
    medians = {
        name: {
            field: statistics.median(getattr(r, field) for r in rounds if r.contender == name)
            for field in ("rate", "with_events", "cpu")
        }
        for name in dict.fromkeys(r.contender for r in rounds)
    }
    if len(medians) == 2:
        theirs, ours = medians["kube-scheduler"], medians["nodewright"]
        lines.append(
            f"ratio of medians: pods/s {ours['rate'] / theirs['rate']:.2f}, with events "
            f"{ours['with_events'] / theirs['with_events']:.2f}, CPU {ours['cpu'] / theirs['cpu']:.2f}"
        )
    return head + "\n".join(lines)


def contenders(only: str | None) -> dict[str, Argv]:
    """The schedulers to compare, by name, in the order of their turns; upstream's is obtained only if it takes part."""
    if only == "nodewright":
        return {"nodewright": nodewright}
    upstream = {"kube-scheduler": kube_scheduler(Assets().obtain(["kube-scheduler"])["kube-scheduler"])}
    return upstream if only else {**upstream, "nodewright": nodewright}


async def run(cluster: LocalCluster, load_: lab.Workload, rounds: int, taking_part: dict[str, Argv]) -> list[Round]:
    """All rounds, in turns."""
    results: list[Round] = []
    async with Client(load(cluster.kubeconfig), user_agent="bench") as client:
        await lab.make_nodes(client, load_)
        for _ in range(rounds):
            for name, argv in taking_part.items():
                results.append(await drain(cluster, client, name, argv, load_))
                print(f"{name}: {results[-1].rate:.0f} pods/s", file=sys.stderr, flush=True)
    return results


def print_logs(folder: Path) -> None:
    """The end of each scheduler's log."""
    for file in sorted(folder.glob("*.log")):
        print(f"--- {file.name}\n{file.read_text(errors='replace')[-4000:]}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our scheduler with kube-scheduler.")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=["nodewright", "kube-scheduler"])
    parser.add_argument("--json", action="store_true", help="print the rounds as JSON")
    parser.add_argument("--logs", action="store_true", help="print the end of the schedulers' logs")
    args = parser.parse_args()
    load_ = lab.Workload(nodes=args.nodes, pods=args.pods)
    taking_part = contenders(args.only)
    with lab.control_plane() as cluster:
        rounds = asyncio.run(run(cluster, load_, args.rounds, taking_part))
        if args.logs:
            print_logs(cluster.dir / "bench")
    print(msgspec.json.encode(rounds).decode() if args.json else table(rounds, load_))


if __name__ == "__main__":
    main()
