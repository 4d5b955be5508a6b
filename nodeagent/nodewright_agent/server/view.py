"""What the HTTPS API needs to know of the agent: the two protocols that the agent implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from nodewright.kube.objects import Pod


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


class Usage(msgspec.Struct):
    """What a cgroup has used; None where the kernel does not tell."""

    cpu_nanoseconds: int | None = None  # since the cgroup was made
    memory_working_set_bytes: int | None = None  # usage without inactive file pages, as upstream defines it
    memory_usage_bytes: int | None = None
    memory_rss_bytes: int | None = None
    started_at: float | None = None  # seconds since the epoch


class ContainerUsage(msgspec.Struct):
    """Usage of one container."""

    name: str
    usage: Usage


class PodUsage(msgspec.Struct):
    """Usage of one pod and its containers."""

    namespace: str
    name: str
    uid: str
    usage: Usage
    containers: list[ContainerUsage]


class NodeUsage(msgspec.Struct):
    """Usage of the node and its pods, all read at `time` (seconds since the epoch)."""

    time: float
    usage: Usage
    pods: list[PodUsage]


class StatsSource(Protocol):
    """Reads usage from cgroups."""

    async def usage(self) -> NodeUsage:
        """Read all usage now."""
        ...
