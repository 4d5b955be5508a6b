"""The machines of a kind cluster, reached through Docker: what a person at the host could do and see."""

import subprocess
from collections.abc import Iterable

# Per kind of host object a command whose lines are compared before and after. Counters and times are left out; of
# mounts, processes and cgroups only what could be ours, since the kubelet's own come and go.
_SEEN = {
    "links": "ip -o link | awk -F'[ @:]+' '{print $2}'",
    "routes": "ip route",
    "rules": "nft list ruleset | sed 's/counter packets.*//; s/ expires [^ ]*//'",
    "iptables": "iptables-save 2>/dev/null | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'",
    "network namespaces": "ls /run/netns 2>/dev/null | grep -v ^cni-",
    "mounts": "grep -o ' /[^ ]*nodewright[^ ]*' /proc/1/mountinfo",
    "cgroups": "find /sys/fs/cgroup -type d -name '*nodewright*'",
    "directories": "ls -d /var/lib/nodewright /run/nodewright /opt/nodewright /etc/cni/net.d/*nodewright* 2>/dev/null",
    "processes": "ps -eo args | grep -E '[n]odewright|[c]onmon'",
}


class Machines:
    """The containers that are a kind cluster's nodes."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster

    def names(self) -> list[str]:
        """All machines of the cluster."""
        label = f"label=io.x-k8s.kind.cluster={self.cluster}"
        return sorted(_run("docker", "ps", "-a", "--filter", label, "--format", "{{.Names}}").split())

    def sh(self, machine: str, script: str, check: bool = True, timeout: float = 60) -> str:
        """Run a shell script as root on a machine; return its output."""
        return _run("docker", "exec", machine, "sh", "-c", script, check=check, timeout=timeout)

    def kill(self, machine: str, pattern: str) -> int:
        """Kill (SIGKILL) what has `pattern` in its command line; returns how many processes that were."""
        # The shell that docker exec starts has the pattern in its own command line: a class keeps it from matching.
        hidden = f"[{pattern[0]}]{pattern[1:]}"
        pids = self.sh(machine, f"pgrep -f '{hidden}'", check=False).split()
        if pids:
            self.sh(machine, f"kill -KILL {' '.join(pids)}")
        return len(pids)

    def restart(self, machine: str) -> None:
        """Stop the machine and start it again; returns when it runs, long before its kubelet is ready."""
        _run("docker", "restart", "-t", "5", machine, timeout=120)

    def snapshot(self, machines: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        """What Nodewright could leave behind, by machine and kind of object."""
        return {
            machine: {
                kind: sorted(self.sh(machine, script, check=False).splitlines()) for kind, script in _SEEN.items()
            }
            for machine in machines
        }


def _run(*argv: str, check: bool = True, timeout: float = 60) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, errors="replace")
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
