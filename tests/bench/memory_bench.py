"""Memory (PSS) of each process of a cluster at rest, with one node host and the example workload.

    .venv/bin/python tests/bench/memory_bench.py [--settle 20] [--json]

Runs as root, in a network namespace of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nodewright.controlplane.processes import memory
from support.cluster import EXAMPLES, Cluster
from support.network import own_namespace


def pss(pid: int) -> int:
    """Bytes of the process's proportional set size."""
    size = memory(pid)
    assert size is not None, f"process {pid} has ended"
    return size


def monitors(run_dir: str) -> list[int]:
    """The pids of the container monitors that work below `run_dir`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if words[0].endswith(b"conmon") and any(word.startswith(run_dir.encode()) for word in words):
            found.append(int(entry.name))
    return found


def measure(settle: float) -> dict[str, int]:
    """Bytes by component; the monitors of two containers as one figure per container."""
    with tempfile.TemporaryDirectory(prefix="nw-bench-") as temporary:
        cluster = Cluster("bench", Path(temporary))
        try:
            cluster.run("up", "--name", cluster.name, "--nodes", "1", "--wait")
            archive = str(Path(temporary) / "demo.tar")
            cluster.run("image", "demo", archive)
            cluster.run("image", "load", "--name", cluster.name, archive)
            cluster.apply(EXAMPLES)
            cluster.wait_running("client")
            time.sleep(settle)
            found = {}
            for record in sorted((cluster.state_dir / "clusters" / cluster.name / "run").glob("*.json")):
                found[record.stem] = pss(json.loads(record.read_text())["pid"])
            pids = monitors(f"/run/nodewright/{cluster.name}")
            found["conmon, each container"] = sum(map(pss, pids)) // max(1, len(pids))
            return found
        finally:
            cluster.run("down", "--name", cluster.name, "--purge", check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, default=20, help="seconds of rest before measuring")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with own_namespace():
        found = measure(arguments.settle)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, size in found.items():
        print(f"{name:<28} {size / 1e6:7.1f} MB")


if __name__ == "__main__":
    main()
