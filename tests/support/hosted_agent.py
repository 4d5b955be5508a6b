"""An "agent" in a container: a mount namespace and cgroup of its own; the host's namespace is entered for containers.

Run as ``python -m support.hosted_agent SETTINGS.json COMMAND``; prints one JSON line and, for ``start``, waits.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from nodewright.kube.objects import Pod
from nodewright_agent.pods.volumes import emptydir, hostpath, mounts
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from support.runtime_host import Host

SCRIPT = """
cat /host/greeting; cat /sub/inner; cat /resolv
echo made >/host/made-by-the-container
echo scratch >/scratch/file
mkdir /scratch/inner; mount -t tmpfs inner /scratch/inner
[ -c /dev/null ] && [ -e /dev/zero ] && echo devices
trap 'echo bye; exit 7' TERM
echo ready
while true; do sleep 0.1; done
"""


class Hosted:
    """The runtime and sandboxes of one such agent."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Take the test's directories and the host's namespace."""
        self.settings = settings
        self.space = HostSpace(settings["mounts"], settings["root"])
        self.host = Host(settings["name"], Path(settings["run"]), Path(settings["state"]), Path(settings["layer"]))
        self.host.logs = Path(settings["logs"])
        self.runtime: Runtime = self.host.runtime(host=self.space)
        self.sandboxes = Sandboxes(self.host.run / "sandboxes", private=False)

    async def start(self) -> dict[str, Any]:
        """Start a container with every kind of volume that crosses the namespaces."""
        await self.runtime.open()
        sandbox = await self.sandboxes.create("pod-1", "pod")
        data = self.settings["data"]
        self.space.call(lambda: hostpath.check(f"{data}/new/er", "DirectoryOrCreate"))
        scratch = self.host.state / "pods/pod-1/volumes/kubernetes.io~empty-dir/scratch"
        emptydir.make(scratch, memory=True)
        pod = msgspec.convert(
            {
                "metadata": {"name": "pod", "namespace": "default", "uid": "pod-1"},
                "spec": {
                    "containers": [
                        {
                            "name": "main",
                            "volumeMounts": [
                                {"name": "host", "mountPath": "/host", "mountPropagation": "HostToContainer"},
                                {"name": "host", "mountPath": "/sub", "subPath": "deep/below"},
                                {"name": "scratch", "mountPath": "/scratch", "mountPropagation": "Bidirectional"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "host", "hostPath": {"path": data}},
                        {"name": "scratch", "emptyDir": {"medium": "Memory"}},
                    ],
                },
            },
            Pod,
        )
        volumes = {"host": Path(data), "scratch": scratch}
        known = mounts.Known(PodPaths(self.host.state / "pods", "pod-1"), self.space, {})
        made = mounts.mounts_for(pod, pod.spec.containers[0], volumes, {}, known)
        resolv = self.host.state / "resolv.conf"
        resolv.write_text(self.space.read_text("/etc/resolv.conf"))
        made.append(msgspec.structs.replace(made[0], source=str(resolv), destination="/resolv", options=["rbind"]))
        spec = self.host.spec(
            "c1", "/bin/sh", "-c", SCRIPT, mounts=made, netns=sandbox.net, uts_ns=sandbox.uts, privileged=True
        )
        await self.runtime.create(spec)
        await self.runtime.start("c1")
        state = (await self.runtime.list())[0].state
        return {"pid": state.pid, "monitor": state.monitor_pid, "agent": os.getpid()}

    async def recover(self) -> dict[str, Any]:
        """Take over what another one left, use it, and end it."""
        await self.runtime.open()
        records = await self.runtime.list()
        phases = [str(record.state.phase) for record in records]
        result = await self.runtime.exec("c1", ["cat", "/scratch/file"])
        sandbox = self.sandboxes.get("pod-1")
        await self.runtime.kill("c1")
        ended = await asyncio.wait_for(self.runtime.wait("c1"), 20)
        await self.runtime.delete("c1")
        await self.sandboxes.remove("pod-1")
        await self.runtime.close()
        return {
            "phases": phases,
            "pid": records[0].state.pid,
            "exec": result.stdout.decode(),
            "sandbox": sandbox is not None,
            "code": ended.code,
            "reason": ended.reason,
        }


async def main(settings: dict[str, Any], command: str) -> None:
    """Do one command and say what came of it."""
    hosted = Hosted(settings)
    try:
        answer = await (hosted.start() if command == "start" else hosted.recover())
    except RuntimeUnavailable as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
    if command == "start" and "error" not in answer:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]))
