"""What the agent needs of that which runs its containers: our own runtime, or another behind its CRI socket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nodewright_agent.runtime.cgroups import Cgroups, CgroupStats
from nodewright_agent.runtime.spec import ContainerRecord, ExecResult, ExitInfo, Resources


class Containers(Protocol):
    """The containers of one node. Errors are those of ``runtime.errors``; ids are the runtime's own."""

    @property
    def cgroups(self) -> Cgroups:
        """The host's hierarchies: the pods' cgroups are made by the agent itself."""

    @property
    def cgroup_root(self) -> str:
        """Everything below it is the agent's."""

    @property
    def layers(self) -> Path:
        """A directory of the file system on which is what containers write."""

    @property
    def monitors_cgroup(self) -> str:
        """Where processes of the runtime itself are; nothing there: nobody but the runtime knows."""

    async def list(self) -> list[ContainerRecord]:
        """Every container that exists, oldest first."""

    def find(self, cid: str) -> ContainerRecord | None:
        """A container; None when there is none."""

    def of_pod(self, pod_uid: str) -> Sequence[ContainerRecord]:
        """The containers of one pod."""

    async def delete(self, cid: str, force: bool = False) -> None:
        """Remove an ended container; with ``force`` end it first. Idempotent."""

    async def wait(self, cid: str) -> ExitInfo:
        """Wait until a container has ended."""

    async def exec(
        self, cid: str, argv: Sequence[str], *, timeout: float | None = None, max_output: int = 1 << 20
    ) -> ExecResult:
        """Run a command in a running container."""

    async def update(self, cid: str, resources: Resources) -> None:
        """Change the limits of a running container that are not None."""

    def annotate(
        self, cid: str, *, resources: Resources | None = None, labels: dict[str, str] | None = None
    ) -> ContainerRecord:
        """Change what a container's record says of its resources, and labels; what is not given stays."""

    def stats(self, cid: str) -> CgroupStats:
        """Counters of a container."""

    def upper(self, cid: str) -> Path | None:
        """The directory of what a container has written; None: nobody but the runtime knows."""

    async def rotate_log(self, cid: str, to: Path) -> None:
        """Rename a log, and return when there is a new one."""

    async def reopen_log(self, cid: str) -> None:
        """Return when there is a log again where one should be."""
