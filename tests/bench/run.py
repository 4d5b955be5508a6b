"""All figures in one table: `make bench`. Each comes from a script beside this one, which can be run alone.

Where an upstream counterpart runs in the same run, in turns, the ratio is of the two medians. The other upstream
figures were measured apart on the same kind of machine, and are marked so.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def script(name: str, *arguments: str) -> Any:
    """Run one benchmark and return the JSON on its last line; its progress goes to the terminal."""
    print(f"... {name} {' '.join(arguments)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, str(HERE / name), *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    rows: list[tuple[str, str, str, str]] = []
    pods = script("pod_start_bench.py", "--pods", "30", "--json")
    start, end = statistics.median(pods["create"]), statistics.median(pods["delete"])
    rows.append(("API create to Running observed, p50", f"{start:.3f} s", "0.196 s *", f"{start / 0.196:.2f}"))
    rows.append(("API delete to gone, p50 (SIGTERM heeded)", f"{end:.3f} s", "-", "-"))
    rounds = script("scheduler_bench.py", "--nodes", "1000", "--pods", "5000", "--rounds", "2", "--json")
    for title, field, form in (
        ("Pods bound per second, 5000 on 1000 nodes", "rate", "{:.0f}/s"),
        ("the same, until every event is posted", "with_events", "{:.0f}/s"),
        ("scheduler's CPU for it", "cpu", "{:.1f} s"),
        ("scheduler's peak memory (RSS)", "peak_rss", "{:.0f} MiB"),
    ):
        ours, theirs = (
            statistics.median(r[field] for r in rounds if r["contender"] == name)
            for name in ("nodewright", "kube-scheduler")
        )
        rows.append((title, form.format(ours), form.format(theirs), f"{ours / theirs:.2f}"))
    for name, size in script("memory_bench.py", "--json").items():
        rows.append((f"memory at rest (PSS): {name}", f"{size / 1e6:.1f} MB", "-", "-"))
    print(f"\n{'figure':<58} {'nodewright':>12} {'upstream':>12} {'ratio':>7}")
    for row in rows:
        print(f"{row[0]:<58} {row[1]:>12} {row[2]:>12} {row[3]:>7}")
    print("* kubelet 1.36.3 with containerd 1.6, measured apart on the same kind of machine")


if __name__ == "__main__":
    main()
