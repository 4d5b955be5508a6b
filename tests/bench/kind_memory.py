"""Memory (PSS) of our processes in a kind cluster against kubelet, kube-proxy and kube-scheduler there.

    .venv/bin/python tests/bench/kind_memory.py --name CLUSTER [--json]

The cluster must run with the chart installed (`make kind-up`); the stock variant has a kube-proxy to compare with.
Reads /proc in the node containers through docker, so nothing runs in the cluster for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections import defaultdict

# Component by the first words of a command line; ours are Python, upstream's are programs of their own.
COMPONENTS = {
    "nodewright operator": ("nodewright", "operator"),
    "nodewright scheduler": ("nodewright", "scheduler"),
    "nodewright agent": ("nodewright", "agent"),
    "nodewright proxy": ("nodewright", "proxy"),
    "conmon, each container": ("conmon",),
    "kubelet": ("kubelet",),
    "containerd": ("containerd",),
    "kube-proxy": ("kube-proxy",),
    "kube-scheduler": ("kube-scheduler",),
    "kube-controller-manager": ("kube-controller-manager",),
    "containerd-shim, each Pod": ("containerd-shim-runc-v2",),
}
# One line per process: its size in KiB, then its command line with the arguments separated by tabs.
_LIST = r"""for p in /proc/[0-9]*; do
  size=$(awk '/^Pss:/{print $2}' $p/smaps_rollup 2>/dev/null) || continue
  [ -n "$size" ] && printf '%s\t%s\n' "$size" "$(tr '\0' '\t' < $p/cmdline)"
done"""


def component(words: list[str]) -> str | None:
    """The component that a command line belongs to, or None."""
    names = [word.rpartition("/")[2] for word in words[:5] if not word.startswith("-")]
    if names and names[0].startswith("python"):
        names = names[1:]
    for title, wanted in COMPONENTS.items():
        if tuple(names[: len(wanted)]) == wanted:
            return title
    return None


def nodes(cluster: str) -> list[str]:
    """Names of the cluster's node containers."""
    argv = ["docker", "ps", "--filter", f"label=io.x-k8s.kind.cluster={cluster}", "--format", "{{.Names}}"]
    return sorted(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


def measure(cluster: str) -> dict[str, list[int]]:
    """Bytes of each process, by component."""
    found: dict[str, list[int]] = defaultdict(list)
    for node in nodes(cluster):
        listing = subprocess.run(
            ["docker", "exec", node, "sh", "-c", _LIST], check=True, capture_output=True, text=True
        )
        for line in listing.stdout.splitlines():
            size, *words = line.split("\t")
            title = component(words)
            if title is not None:
                found[title].append(int(size) * 1024)
    if not found:
        raise SystemExit(f"no node containers of a kind cluster {cluster!r} are running")
    return {title: found[title] for title in COMPONENTS if title in found}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="nodewright", help="the kind cluster")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.name)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{'process':<28} {'count':>5} {'median':>10} {'largest':>10}   (PSS, MB)")
    for title, sizes in found.items():
        print(f"{title:<28} {len(sizes):>5} {statistics.median(sizes) / 1e6:>10.1f} {max(sizes) / 1e6:>10.1f}")


if __name__ == "__main__":
    main()
