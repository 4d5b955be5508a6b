"""All figures in one table: `make bench`. Each comes from a script beside this one, which can be run alone.

Where an upstream counterpart runs in the same run, in turns, the ratio is of the two medians.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Row = tuple[str, str, str, str]
Figures = tuple[tuple[str, str, str], ...]

# Title, field of a round, and how it is written.
SCHEDULER_FIGURES = (
    ("Pods bound per second", "rate", "{:.0f}/s"),
    ("scheduler's CPU per Pod", "cpu_per_pod", "{:.2f} ms"),
    ("API server's CPU", "apiserver_share", "{:.0f} %"),
    ("scheduler's peak RSS", "peak_rss", "{:.0f} MiB"),
    ("mean of a decision", "decision_mean", "{:.2f} ms"),
    ("p99 of a decision", "decision_p99", "{:.1f} ms"),
)

NODE_FIGURES = (
    ("API create to Running and ready observed, p50", "start", "{:.3f} s"),
    ("API delete to gone, grace 1 s, SIGTERM ignored, p50", "delete", "{:.2f} s"),
    ("burst of Pods, until all are Running and ready", "burst", "{:.2f} s"),
    ("memory of its processes without Pods (PSS)", "memory", "{:.1f} MB"),
    ("memory that each Pod adds (PSS, helpers included)", "memory_per_pod", "{:.2f} MB"),
    ("CPU with Pods at rest, of one core", "rest", "{:.2f} %"),
)

# For what was done to DaemonSets: title, field of a round, and how it is written.
DAEMONSET_FIGURES = {
    "create": (
        ("until all Pods are made", "seconds", "{:.2f} s"),
        ("controller's CPU per Pod", "cpu_per_pod", "{:.2f} ms"),
        ("API server's CPU per Pod", "apiserver_per_pod", "{:.2f} ms"),
        ("requests per Pod", "requests_per_pod", "{:.3f}"),
    ),
    "rollout": (
        ("until rolled out", "seconds", "{:.2f} s"),
        ("controller's CPU per Pod", "cpu_per_pod", "{:.2f} ms"),
        ("requests per Pod", "requests_per_pod", "{:.3f}"),
        ("controller's peak RSS", "peak_rss", "{:.0f} MiB"),
    ),
    "create many": (
        ("until all Pods are made", "seconds", "{:.2f} s"),
        ("requests per Pod", "requests_per_pod", "{:.3f}"),
    ),
    "steady": (
        ("requests per Pod until all are ready", "requests_per_pod", "{:.3f}"),
        ("controller's CPU at rest", "idle", "{:.2f} %"),
        ("controller's peak RSS", "peak_rss", "{:.0f} MiB"),
        ("controller's PSS at rest", "pss", "{:.0f} MiB"),
    ),
}


def script(name: str, *arguments: str) -> tuple[Any, bool]:
    """Run one benchmark: the JSON on its last line, and whether it succeeded; its progress goes to the terminal.

    A benchmark that found something wrong fails, and still tells what it measured.
    """
    print(f"... {name} {' '.join(arguments)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, str(HERE / name), *arguments], stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    if not lines:
        done.check_returncode()
    return json.loads(lines[-1]), done.returncode == 0


def compared(what: str, rounds: list[dict[str, Any]], figures: Figures, theirs: str) -> list[Row]:
    """Medians of both contenders, and their ratios; nothing where one of the two failed, which was told."""
    if {r["contender"] for r in rounds} != {"nodewright", theirs}:
        return []
    rows = []
    for title, field, form in figures:
        found: dict[str, list[float]] = {"nodewright": [], theirs: []}
        for r in rounds:
            found[r["contender"]].append(r[field])
        mine, other = map(statistics.median, found.values())
        ratio = f"{mine / other:.2f}" if other else "-"
        rows.append((f"{what}: {title}", form.format(mine), form.format(other), ratio))
    return rows


def scheduler_rows(rounds: list[dict[str, Any]]) -> list[Row]:
    """Medians of both schedulers for each workload."""
    rows = []
    for workload in dict.fromkeys(r["workload"] for r in rounds):
        mine = [r for r in rounds if r["workload"] == workload]
        size = f"{workload}, {mine[0]['pods']} on {mine[0]['nodes']}"
        rows += compared(size, mine, SCHEDULER_FIGURES, "kube-scheduler")
        sent = [r["sent_p99"] for r in mine if r["sent_p99"] is not None]
        if sent:
            rows.append((f"{size}: p99 until the binding is sent", f"{statistics.median(sent):.1f} ms", "-", "-"))
    return rows


def daemonset_rows(rounds: list[dict[str, Any]]) -> list[Row]:
    """Medians of both DaemonSet controllers for each thing that was done."""
    rows = []
    for scenario, figures in DAEMONSET_FIGURES.items():
        mine = [r for r in rounds if r["scenario"] == scenario]
        if mine:
            size = f"DaemonSets, {scenario}, {mine[0]['daemonsets']} x {mine[0]['nodes']}"
            rows += compared(size, mine, figures, "kube-controller-manager")
    return rows


def main() -> None:
    rows: list[Row] = []
    nodes, first = script("node_bench.py", "--json")
    rows += compared("node agent", nodes["rounds"], NODE_FIGURES, "kubelet")
    pods, fifth = script("pod_start_bench.py", "--pods", "30", "--json")
    end = statistics.median(pods["delete"])
    rows.append(("node agent: API delete to gone, SIGTERM heeded, p50", f"{end:.3f} s", "-", "-"))
    scheduler, second = script("scheduler_bench.py", "--rounds", "2", "--json")
    rows += scheduler_rows(scheduler["rounds"])
    daemonsets, third = script("daemonset_bench.py", "--rounds", "2", "--json")
    rows += daemonset_rows(daemonsets["rounds"])
    memory, fourth = script("memory_bench.py", "--json")
    for name, size in memory.items():
        rows.append((f"memory at rest (PSS): {name}", f"{size / 1e6:.1f} MB", "-", "-"))
    print(f"\n{'figure':<76} {'nodewright':>12} {'upstream':>12} {'ratio':>7}")
    for row in rows:
        print(f"{row[0]:<76} {row[1]:>12} {row[2]:>12} {row[3]:>7}")
    if not (first and second and third and fourth and fifth):
        sys.exit("a benchmark failed; what was wrong stands above its figures")


if __name__ == "__main__":
    main()
