"""A "host" and "agent containers" on it: two mount namespaces that share two directories and nothing else.

The host is a mount namespace, private to the test, held by a sleeping process. A container is another one, copied from
the host's, in which only the shared directories propagate; its processes are in a cgroup of their own in every
hierarchy, and it does not see the host's programs and data.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nodewright_agent.runtime import mountinfo, processes
from nodewright_agent.runtime.hostspace import HostSpace
from support.runtime_host import Host

ROOT = Path(__file__).parents[2]
# In the host: the directories become shared mounts, as / is on a node with systemd; its own resolv.conf.
_HOST = """
set -e
for directory in "$1" "$2"; do mount --bind "$directory" "$directory"; mount --make-shared "$directory"; done
mount --bind "$3" /etc/resolv.conf
echo ready
exec sleep 1000
"""
# In the container: no such programs, no such data, another resolv.conf.
_CONTAINER = """
set -e
mount --bind /dev/null /usr/bin/conmon
mount --bind /dev/null "$(readlink -f "$(command -v runc)")"
mount -t tmpfs none "$1"
umount /etc/resolv.conf
eval "$2"
shift 2
exec "$@"
"""


class TwoNamespaces:
    """One host. ``start`` runs the hosted agent in a container, ``kill`` ends a container as kubelet would."""

    def __init__(self, host: Host, work: Path) -> None:
        self.host, self.work = host, work
        self.data = work / "data"
        (self.data / "deep/below").mkdir(parents=True)
        (self.data / "greeting").write_text("hello from the host\n")
        (self.data / "deep/below/inner").write_text("inner\n")
        (work / "resolv.conf").write_text("nameserver 192.0.2.53\n")
        for directory in (host.run, host.state):
            directory.mkdir(parents=True, exist_ok=True)
        words = [str(host.run), str(host.state), str(work / "resolv.conf")]
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HOST, "sh", *words]
        self.holder = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"
        self.space = HostSpace(f"/proc/{self.holder.pid}/ns/mnt", f"/proc/{self.holder.pid}/root")
        self.cgroup = f"/nodewright-{host.name}/kubelet-pod"
        host.cgroups.create(self.cgroup)
        self.settings = work / "settings.json"
        self.settings.write_text(
            json.dumps(
                {
                    "name": host.name,
                    "run": f"{host.run}/a",
                    "state": f"{host.state}/a",
                    "logs": str(host.logs),
                    "layer": str(host.layer),
                    "data": str(self.data),
                    "mounts": self.space.mounts,
                    "root": self.space.root,
                }
            )
        )

    def start(self, command: str, *, spoil: str = "") -> subprocess.Popen[str]:
        """The agent in a new container; ``spoil`` is a command that makes it one that is not as it should be."""
        return self.run("support.hosted_agent", str(self.settings), command, spoil=spoil)

    def run(self, module: str, *words: str, spoil: str = "") -> subprocess.Popen[str]:
        """A Python program in a new container, in an empty network namespace."""
        path = os.pathsep.join(str(ROOT / part) for part in ("operator", "nodeagent", "tests"))
        inner = ["unshare", "--net", sys.executable, "-m", module, *words]
        argv = ["nsenter", f"--mount={self.space.mounts}", "unshare", "--mount", "--propagation", "unchanged"]
        argv += ["sh", "-c", _CONTAINER, "sh", str(self.data), spoil, *inner]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
        # It waits in a shell until it is in its cgroup: all that it starts begins there.
        gate = ["sh", "-c", 'read _; exec "$@"', "sh", *argv]
        process = subprocess.Popen(
            gate, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.host.cgroups.enter(self.cgroup, process.pid, everywhere=True)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        return process

    def answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """The agent's line."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            raise AssertionError(f"the agent said nothing: {process.stderr.read()}")
        return dict(json.loads(line))

    def kill(self, process: subprocess.Popen[str]) -> set[int]:
        """SIGKILL all that is in the container's cgroup in any hierarchy, as runc does; which they were."""
        victims = self.host.cgroups.pids(self.cgroup)
        for pid in victims:
            processes.kill(pid, signal.SIGKILL)
        processes.wait_gone(victims - {process.pid}, time.monotonic() + 10)
        process.communicate(timeout=10)
        return victims

    def mounts(self) -> list[str]:
        """What is mounted in the host's namespace below the shared directories, but for these themselves."""
        entries = self.space.call(mountinfo.read)
        own = (str(self.host.run), str(self.host.state))
        return [point for base in own for point in mountinfo.below(entries, base) if point not in own]


@contextmanager
def two_namespaces(host: Host, work: Path) -> Iterator[TwoNamespaces]:
    """A host for one test; with it go all mounts. Processes and cgroups are the purge's of the ``host`` fixture."""
    here = TwoNamespaces(host, work)
    try:
        yield here
    finally:
        for pid in host.cgroups.pids(f"/nodewright-{host.name}"):
            processes.kill(pid)
        here.holder.kill()
        here.holder.communicate()
