"""Pods bound per second from a backlog, side by side with kube-scheduler, in turns, on the same API server.

    python tests/bench/scheduler_bench.py [--workload basic]... [--rounds 2] [--only nodewright] [--all-nodes]

The clock runs from the first change of a Pod that a watch shows to the last binding, for both alike; starting up is
shown apart. kube-scheduler is obtained as the control plane's binaries are: a directory, the cache, a download, or a
build. It looks at a part of the nodes (of 1000: 420) unless told --all-nodes; ours looks at all of them always.
Every outcome is checked: a Pod without a node, an over-committed node or a broken rule fails the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

import scheduler_lab as lab
from figures import Comparison, end, print_logs
from scheduler_contenders import Contender, Ended, kube_scheduler, nodewright
from scheduler_round import Round, Stalled, drain
from scheduler_workloads import WORKLOADS, Workload

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube.client import Client
from nodewright.kube.config import load

OURS, THEIRS = "nodewright", "kube-scheduler"
# Title, field of Round, and how it is written.
COLUMNS = (
    ("pods/s", "rate", ".0f"),
    ("middle 80%", "steady", ".0f"),
    ("with events", "with_events", ".0f"),
    ("start s", "startup", ".2f"),
    ("CPU ms/pod", "cpu_per_pod", ".2f"),
    ("apiserver %", "apiserver_share", ".0f"),
    ("etcd %", "etcd_share", ".0f"),
    ("peak RSS MiB", "peak_rss", ".0f"),
    ("PSS MiB", "pss", ".0f"),
    ("decisions", "decisions", "d"),
    ("mean ms", "decision_mean", ".2f"),
    ("p50 ms", "decision_p50", ".2f"),
    ("p99 ms", "decision_p99", ".2f"),
    ("sent p99 ms", "sent_p99", ".2f"),
    ("events", "events", "d"),
    ("victims", "victims", "d"),
    ("on a node", "widest", "d"),
)
RATIOS = ("rate", "steady", "with_events", "cpu_per_pod", "peak_rss", "decision_mean", "decision_p99")


class Result(msgspec.Struct):
    """All rounds, and what went wrong; empty when nothing did."""

    rounds: list[Round]
    wrong: list[str]


def table(rounds: list[Round], workload: Workload) -> str:
    """The rounds of a workload as text; ratios are of medians, against kube-scheduler where it took part."""
    parts = [workload.summary, f"{workload.pods} Pods on {workload.nodes} nodes", f"{os.cpu_count()} cores"]
    return Comparison("scheduler", OURS, THEIRS, COLUMNS, RATIOS).table(f"{workload.name}: {', '.join(parts)}", rounds)


def contenders(only: str | None, *, all_nodes: bool) -> list[Contender]:
    """The schedulers to compare, in the order of their turns; upstream's is obtained only if it takes part."""
    found = []
    if only != OURS:
        binary = Assets().obtain([THEIRS])[THEIRS]
        found.append(Contender(THEIRS, kube_scheduler(binary, all_nodes=all_nodes), "https"))
    if only != THEIRS:
        found.append(Contender(OURS, nodewright, "http"))
    return found


async def run(cluster: LocalCluster, workloads: list[Workload], rounds: int, taking_part: list[Contender]) -> Result:
    """All rounds of workloads with the same number of nodes, in turns."""
    result = Result([], [])
    async with Client(load(cluster.kubeconfig), user_agent="bench") as client:
        await lab.furnish(client, workloads[0].nodes)
        for workload in workloads:
            for _, contender in itertools.product(range(rounds), taking_part):
                title = f"{workload.name}, {contender.name}"
                try:
                    done = await drain(cluster, client, contender, workload)
                except (Stalled, Ended) as error:
                    result.wrong.append(f"{title}: {error}")
                    continue
                print(f"{title}: {done.rate:.0f} pods/s", file=sys.stderr, flush=True)
                result.rounds.append(done)
                result.wrong += [f"{title}: {what}" for what in done.wrong]
    return result


def measure(workloads: list[Workload], rounds: int, taking_part: list[Contender], *, logs: bool) -> Result:
    """All rounds of all workloads, on one control plane for each number of nodes."""
    result = Result([], [])
    for _, group in itertools.groupby(workloads, key=lambda workload: workload.nodes):
        with lab.control_plane() as cluster:
            part = asyncio.run(run(cluster, list(group), rounds, taking_part))
            if logs:
                print_logs(cluster.dir / "bench")
        result.rounds += part.rounds
        result.wrong += part.wrong
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our scheduler with kube-scheduler.")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="repeatable; all by default")
    parser.add_argument("--nodes", type=int, help="instead of the workload's own number")
    parser.add_argument("--pods", type=int, help="instead of the workload's own number")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=[OURS, THEIRS])
    parser.add_argument("--all-nodes", action="store_true", help="kube-scheduler looks at every node, too")
    parser.add_argument("--json", action="store_true", help="print the rounds as JSON")
    parser.add_argument("--logs", action="store_true", help="print the end of the schedulers' logs")
    args = parser.parse_args()
    chosen = [w for name, w in WORKLOADS.items() if not args.workload or name in args.workload]
    workloads = [workload.resized(args.nodes, args.pods) for workload in chosen]
    taking_part = contenders(args.only, all_nodes=args.all_nodes)
    result = measure(workloads, args.rounds, taking_part, logs=args.logs)
    if args.json:
        print(msgspec.json.encode(result).decode())
    else:
        for workload in workloads:
            print(table([r for r in result.rounds if r.workload == workload.name], workload), end="\n\n")
    end(result.wrong)


if __name__ == "__main__":
    main()
