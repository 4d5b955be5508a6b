"""The two ways in which a node's containers are run: by the agent itself, or by another runtime behind its CRI socket.

An ``Engine`` is one of them, as the assembly needs it; ``Context`` is what both are built from.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nodewright.kube.cache import WatchCache
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import Pod, Service
from nodewright_agent.bootstrap.clients import Clients
from nodewright_agent.config import AgentConfig
from nodewright_agent.node import clusterdns
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.pods import refs, spec
from nodewright_agent.pods.common import Common
from nodewright_agent.pods.containers import Containers
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.podfiles import PodFiles
from nodewright_agent.pods.ports import Clock, Exit, Operations
from nodewright_agent.pods.recovery import Found
from nodewright_agent.pods.resources import CgroupSettings
from nodewright_agent.pods.volumes.manager import VolumeManager
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.spec import ExitInfo
from nodewright_agent.server.streaming.backend import NodeStreams
from nodewright_agent.upkeep import NodeImages
from nodewright_agent.usage.disk import Count


class Networking(Protocol):
    """How the network of the node's pods comes about."""

    @property
    def ready(self) -> asyncio.Event:
        """Set once pods can have addresses."""

    async def run(self) -> None:
        """Bring it up and keep it; never returns."""

    async def run_alone(self) -> None:
        """The same for a node without an API server; never returns."""


@dataclass(slots=True)
class Context:
    """What the steps of building a node share; each opens parts and leaves their end to the stack."""

    stack: contextlib.AsyncExitStack
    config: AgentConfig
    clients: Clients
    recorder: EventRecorder
    services: WatchCache[Service]
    clock: Clock
    space: HostSpace
    managers: list[PodManager] = field(default_factory=list)
    """None until the parts below it are there."""

    def volumes(self, *, recursive_read_only: bool) -> VolumeManager:
        """Open the volumes of all pods."""

        def failed(pod: Pod, message: str) -> None:
            self.recorder.event(refs.reference(pod), "Warning", "FailedMount", message)

        def awaken(uid: str) -> None:
            for manager in self.managers:
                manager.volumes_changed(uid)

        volumes = VolumeManager(
            self.clients.node,
            self.config.state,
            on_failed=failed,
            on_wake=awaken,
            space=self.space,
            recursive_read_only=recursive_read_only,
        )
        self.stack.push_async_callback(volumes.close)
        return volumes

    def files(self) -> PodFiles:
        """The pods' own files."""
        services = self.services
        return PodFiles(self.config, self.space, lambda: clusterdns.addresses(services.get(clusterdns.SERVICE)))

    def common(self, keeper: NodeKeeper) -> dict[str, Any]:
        """Those fields of ``Common`` that do not depend on the engine."""
        return {
            "files": self.files(),
            "events": self.recorder,
            "host_ips": (self.config.node_ip,),
            "allocatable": keeper.allocatable,
            "node_name": self.config.node_name,
            "node_labels": lambda: keeper.node.metadata.labels if keeper.node is not None else None,
            "services": self.services.values,
        }

    def settings(self, cgroups: Cgroups, keeper: NodeKeeper, *, app_armor: bool) -> spec.NodeSettings:
        """What of the node goes into every container; ``app_armor``: whether our default profile is loaded."""
        config = self.config
        return spec.NodeSettings(
            cgroup_root=config.cgroup_root,
            memory_capacity=keeper.facts.memory,
            seccomp_directory=config.state / "seccomp",
            log_root=config.logs,
            log_links=config.log_directories.get("log_links_dir"),
            cgroups=CgroupSettings(
                cpu_quota=config.cpu_cfs_quota,
                cpu_period=round(config.cpu_cfs_quota_period * 1_000_000),
                pod_pids_limit=config.pod_pids_limit,
                page_sizes=cgroups.hugepage_sizes(cgroup_math.kubepods_path(config.cgroup_root)),
            ),
            single_process_oom_kill=config.single_process_oom_kill,
            app_armor=app_armor,
        )

    def ended(self, container_id: str, info: ExitInfo) -> None:
        """Tell of a container's end."""
        for manager in self.managers:  # none yet while the runtime is being opened: recovery reads what it found
            manager.exited(container_id, Exit(info.code, info.finished_at or 0.0, info.oom_killed, info.reason))


class Engine(Protocol):
    """One way to run a node's containers, opened."""

    @property
    def containers(self) -> Containers:
        """The containers."""

    @property
    def images(self) -> NodeImages:
        """The images, for their collection."""

    @property
    def scheme(self) -> str:
        """What stands before the ids of containers in the API."""

    @property
    def app_armor(self) -> bool:
        """Whether the host enforces AppArmor."""

    @property
    def written(self) -> Callable[[], Awaitable[Mapping[str, Count]]] | None:
        """Gives what containers have written, by id, where only the runtime knows."""

    def shown(self) -> Iterable[Image]:
        """The images that the Node's status shows."""

    async def work(self, keeper: NodeKeeper) -> tuple[Common, Operations]:
        """Make what the workers of pods need, and tell the keeper what the node can do."""

    def networking(self, keeper: NodeKeeper) -> Networking:
        """What brings the pods' network up."""

    def streams(self, manager: PodManager, pods: Callable[[], Any]) -> NodeStreams:
        """Where exec, attach and port-forward lead; ``pods`` gives all pods of the node."""

    async def found(self) -> Found:
        """What an earlier agent left."""
