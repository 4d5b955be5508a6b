"""Where a runtime under test keeps its things, how its containers are described, and what is left of them."""

import os
from pathlib import Path
from typing import Any

from nodewright_agent.runtime import cgroups, cleanup, mountinfo, processes
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.spec import ContainerSpec, ExitInfo, Mount


class Host:
    """One test's directories, below paths that no other test uses."""

    def __init__(self, name: str, run: Path, state: Path, layer: Path) -> None:
        self.name, self.run, self.state, self.layer = name, run, state, layer
        self.cgroup_root = f"/nodewright-{name}/node"
        self.cgroups = cgroups.detect()
        self.logs = state.parent / "logs"
        self.exits: list[tuple[str, ExitInfo]] = []

    def runtime(self, **settings: Any) -> Runtime:
        """A runtime (not opened) on these directories; every call is a new "agent" on the same host."""
        return Runtime(
            run_dir=self.run / "runtime",
            state_dir=self.state / "containers",
            cgroup_root=self.cgroup_root,
            hierarchies=self.cgroups,
            on_exit=lambda cid, info: self.exits.append((cid, info)),
            **settings,
        )

    def spec(self, cid: str, *argv: str, mounts: list[Mount] | None = None, **fields: Any) -> ContainerSpec:
        """A container with the busybox layer."""
        fields.setdefault("lowers", [str(self.layer)])
        return ContainerSpec(
            id=cid,
            pod_uid="pod-1",
            pod_name="pod",
            pod_namespace="default",
            name="main",
            argv=list(argv),
            log_path=str(self.logs / cid / "0.log"),
            cgroup_parent=f"{self.cgroup_root}/kubepods/podpod-1",
            mounts=mounts or [],
            **fields,
        )

    def log(self, cid: str) -> str:
        """The container's CRI log."""
        return (self.logs / cid / "0.log").read_text()

    def lines(self, cid: str) -> list[str]:
        """The messages of the log, without time, stream and tag."""
        return [line.split(" ", 3)[3] for line in self.log(cid).splitlines()]

    def leftovers(self) -> dict[str, list[str]]:
        """All that exists of this test on the host; empty when nothing does."""
        root = self.cgroup_root.split("/")[1]
        found = {
            "mounts": [point for base in (self.run, self.state) for point in mountinfo.below(mountinfo.read(), base)],
            "files": [str(base) for base in (self.run, self.state) if os.path.lexists(base)],
            "cgroups": [str(mount / root) for mount in self.cgroups.hierarchies() if (mount / root).exists()],
            "processes": [" ".join(processes.command_line(pid)) for pid in processes.with_argument(str(self.run))],
            "cgroup names": cleanup.find_cgroups(self.cgroups, "/", root),
        }
        return {kind: values for kind, values in found.items() if values}
