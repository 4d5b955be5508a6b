"""An "agent" for the crash tests: sandbox, create, start, end, delete, remove; a failpoint kills it on the way.

argv: run directory, state directory (both of the whole test), cgroup root, layer, log, command...
"""

import asyncio
import sys
from pathlib import Path

from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import ContainerSpec, Mount


async def main(run: Path, state: Path, cgroup_root: str, layer: str, log: str, command: list[str]) -> None:
    runtime = Runtime(run_dir=run / "runtime", state_dir=state / "containers", cgroup_root=cgroup_root)
    await runtime.open()
    sandboxes = Sandboxes(run / "sandboxes")
    paths = await sandboxes.create("pod-1", "pod")
    spec = ContainerSpec(
        id="victim",
        pod_uid="pod-1",
        pod_name="pod",
        pod_namespace="default",
        name="main",
        lowers=[layer],
        argv=command,
        netns=paths.net,
        ipc_ns=paths.ipc,
        uts_ns=paths.uts,
        mounts=[Mount(paths.shm, "/dev/shm", "bind", ["rw"])],
        log_path=log,
        cgroup_parent=f"{cgroup_root}/kubepods/podpod-1",
    )
    await runtime.create(spec)
    await runtime.start("victim")
    print("started", flush=True)
    await runtime.wait("victim")
    await runtime.delete("victim")
    await sandboxes.remove("pod-1")
    await runtime.purge()
    print("clean", flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    asyncio.run(main(Path(words[0]), Path(words[1]), words[2], words[3], words[4], words[5:]))
