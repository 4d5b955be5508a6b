"""What a failed end-to-end test leaves for a person to look at: one folder with logs, objects, rules, links."""

import os
import subprocess
from pathlib import Path

from support.live import Live
from support.live_facts import RELEASE_NAMESPACE

_OBJECTS = "nodes,pods,services,endpointslices,daemonsets.apps,deployments,leases,events"
_OURS = "daemonsets.nodewright.dev,nodeagentconfigs,schedulerprofiles"
_ON_NODE = {
    "rules.txt": "nft list ruleset; iptables-save",
    "links.txt": "ip -d addr; ip route; ip neigh",
    "processes.txt": "ps -eo pid,ppid,etime,args",
    "mounts.txt": "cat /proc/self/mountinfo",
    "journal.txt": "journalctl --no-pager -n 400",
}


def gather(live: Live, folder: Path, namespace: str | None) -> None:
    """Fill `folder`. Nothing here may fail: the test's own failure is the news."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "objects.txt", live.kubectl("get", _OBJECTS, "-A", "-o", "wide", check=False))
    described = f"pods,nodes,endpointslices,services,{_OURS}"
    _write(folder / "objects.yaml", live.kubectl("get", described, "-A", "-o", "yaml", check=False))
    _write(folder / "events.txt", live.kubectl("get", "events", "-A", "--sort-by=.lastTimestamp", check=False))
    for space in filter(None, (RELEASE_NAMESPACE, namespace)):
        names = live.kubectl("get", "pods", "-n", space, "-o", "name", check=False).split()
        for name in (word for word in names if word.startswith("pod/")):
            for suffix, more in (("", ()), (".previous", ("--previous",))):
                text = live.kubectl("logs", "-n", space, name, "--all-containers", "--tail=2000", *more, check=False)
                if not (suffix and "not found" in text):
                    _write(folder / space / f"{name.removeprefix('pod/')}{suffix}.log", text)
    if cluster := os.environ.get("NODEWRIGHT_E2E_KIND"):
        _from_nodes(cluster, folder)


def _from_nodes(cluster: str, folder: Path) -> None:
    listed = _run("docker", "ps", "-a", "--filter", f"label=io.x-k8s.kind.cluster={cluster}", "--format", "{{.Names}}")
    for node in listed.split():
        for file, script in _ON_NODE.items():
            _write(folder / "nodes" / node / file, _run("docker", "exec", node, "sh", "-c", script))


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}\n"
    return done.stdout + done.stderr


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
