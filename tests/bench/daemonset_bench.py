"""DaemonSets at scale, side by side with kube-controller-manager's DaemonSet controller, in turns in the same run.

    python tests/bench/daemonset_bench.py [--rounds 2] [--scenario large]... [--only nodewright] [--own-kind] [--json]

Both serve the same objects of apps/v1; with --own-kind ours serves those of nodewright.dev/v1alpha1.

`large`: one DaemonSet on 1000 nodes is created, and its template changed with maxUnavailable 10 %; `small`: 100
DaemonSets on 100 nodes, at rest. The nodes have no kubelets: the benchmark marks Pods as ready, and ends deleted ones.
Every turn has a control plane of its own. Requests are counted from the API server's audit log, watches left out.
Every outcome is checked: a node without its Pod or with two, an old revision or a wrong status fails the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

import scheduler_lab as lab
from daemonset_lab import OURS, THEIRS, contenders, count_requests
from daemonset_round import Round, Stalled, many_small, one_large
from figures import Comparison, end, print_logs
from scheduler_contenders import Contender, Ended

from nodewright.kube.resources import Resource

# Title, field of Round, and how it is written.
COLUMNS = (
    ("seconds", "seconds", ".2f"),
    ("pods/s", "rate", ".0f"),
    ("CPU ms/pod", "cpu_per_pod", ".2f"),
    ("apiserver ms/pod", "apiserver_per_pod", ".2f"),
    ("requests/pod", "requests_per_pod", ".3f"),
    ("peak RSS MiB", "peak_rss", ".0f"),
    ("PSS MiB", "pss", ".0f"),
    ("idle CPU %", "idle", ".2f"),
    ("start s", "startup", ".2f"),
)
RATIOS = ("seconds", "cpu_per_pod", "apiserver_per_pod", "requests_per_pod", "peak_rss", "pss")


class Sizes(msgspec.Struct, frozen=True):
    """How large the scenarios are, and for how many seconds idleness is measured."""

    nodes: int
    small_nodes: int
    daemonsets: int
    idle: float


class Result(msgspec.Struct):
    """All rounds, and what went wrong; empty when nothing did."""

    rounds: list[Round]
    wrong: list[str]


def play(
    scenario: str, contender: Contender, kind: Resource, sizes: Sizes, *, logs: bool
) -> tuple[list[Round], list[str]]:
    """One turn on a fresh control plane; a contender that fails is told among what is wrong."""
    title = f"{scenario}, {contender.name}"
    with lab.control_plane(count_requests) as cluster:
        try:
            if scenario == "large":
                turn = one_large(cluster, contender, kind, sizes.nodes)
            else:
                turn = many_small(cluster, contender, kind, sizes.small_nodes, sizes.daemonsets, sizes.idle)
            rounds, wrong = asyncio.run(turn)
        except (Stalled, Ended) as error:
            rounds, wrong = [], [str(error)]
        if logs:
            print_logs(cluster.dir / "bench")
    for done in rounds:
        print(f"{done.contender}, {done.scenario}: {done.seconds:.2f} s, {done.requests}", file=sys.stderr, flush=True)
    return rounds, [f"{title}: {what}" for what in wrong]


def table(rounds: list[Round]) -> str:
    """All rounds as text, by what was done."""
    compared = Comparison("controller", OURS, THEIRS, COLUMNS, RATIOS)
    parts = []
    for scenario in dict.fromkeys(r.scenario for r in rounds):
        mine = [r for r in rounds if r.scenario == scenario]
        size = f"{mine[0].daemonsets} x {mine[0].nodes} nodes, {mine[0].pods} Pods, {os.cpu_count()} cores"
        parts.append(compared.table(f"{scenario}: {size}", mine))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our DaemonSet controller with kube-controller-manager's.")
    parser.add_argument("--scenario", action="append", choices=["large", "small"], help="repeatable; both by default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1000, help="of `large`")
    parser.add_argument("--small-nodes", type=int, default=100, help="of `small`")
    parser.add_argument("--daemonsets", type=int, default=100, help="of `small`")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds at rest")
    parser.add_argument("--only", choices=[OURS, THEIRS])
    parser.add_argument("--own-kind", action="store_true", help="ours serves its own kind, not apps/v1")
    parser.add_argument("--json", action="store_true", help="print the rounds as JSON")
    parser.add_argument("--logs", action="store_true", help="print the end of the controllers' logs")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the control plane is taken down
    sizes = Sizes(args.nodes, args.small_nodes, args.daemonsets, args.idle)
    result = Result([], [])
    taking_part = contenders(args.only, own_kind=args.own_kind)
    for scenario in args.scenario or ["large", "small"]:
        for _, (contender, kind) in itertools.product(range(args.rounds), taking_part):
            rounds, wrong = play(scenario, contender, kind, sizes, logs=args.logs)
            result.rounds += rounds
            result.wrong += wrong
    print(msgspec.json.encode(result).decode() if args.json else table(result.rounds))
    end(result.wrong)


if __name__ == "__main__":
    main()
