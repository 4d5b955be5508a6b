"""What the HTTPS API needs to know of the agent: the two protocols that the agent implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nodewright.kube.objects import Pod
from nodewright_agent.usage.model import ContainerUsage, NodeUsage, PodUsage, Usage


class PodsView(Protocol):
    """The agent's pods, as it knows them now (newer than what the API server shows). All calls are in the loop."""

    @property
    def log_root(self) -> Path:
        """The directory of all logs; nothing outside of it is ever read."""
        ...

    def pods(self) -> Sequence[Pod]:
        """All pods bound to this node that the agent has taken on, with their current status."""
        ...

    def running_pods(self) -> Sequence[Pod]:
        """The pods of which the runtime has something running, seen from the runtime."""
        ...

    def log_parts(self, pod: Pod, container: str, container_id: str) -> tuple[str, ...] | None:
        """The path of a container's log below `log_root`: `("<ns>_<pod>_<uid>", "<container>", "<n>.log")`.

        `container_id` is taken from the pod's status as it stands there (`nodewright://<id>`); None means that the
        agent knows no such container any more.
        """
        ...

    async def wait_exited(self, container_id: str) -> None:
        """Return when the container is not running (any more); at once when it is unknown. May be cancelled."""
        ...

    def config(self) -> Mapping[str, Any]:
        """The agent's configuration under kubelet's field names, for /configz. No secrets."""
        ...


class StatsSource(Protocol):
    """Reads usage from cgroups and file systems."""

    async def usage(self) -> NodeUsage:
        """Read all usage now, with rates and disk usage."""
        ...

    async def cgroups(self) -> NodeUsage:
        """Read all usage now but for rates and disks, which cost more."""
        ...


__all__ = ["ContainerUsage", "NodeUsage", "PodUsage", "PodsView", "StatsSource", "Usage"]
