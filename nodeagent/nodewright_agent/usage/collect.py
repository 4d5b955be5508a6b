"""Reads the usage of the node, its Pods and containers, at the moment that somebody asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodewright.kube.objects import Pod
from nodewright_agent.config import AgentConfig
from nodewright_agent.pods import podfiles, spec
from nodewright_agent.pods.containers import Containers
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.model import Instance
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.spec import ContainerRecord
from nodewright_agent.usage import cgroupfiles, host
from nodewright_agent.usage.disk import OLDEST, Count, DiskCounter
from nodewright_agent.usage.model import (
    ContainerUsage,
    FsUsage,
    NodeUsage,
    PodUsage,
    SystemUsage,
    Usage,
    VolumeUsage,
)
from nodewright_agent.usage.rates import Rates

_COUNTED = ("empty-dir", "configmap", "secret", "downward-api", "projected")
"""Plugins whose directories are the Pod's own."""
_ON_NODE_FS = ("empty-dir", "configmap")
"""Those of which upstream counts what is on disk as the Pod's ephemeral storage."""

Counts = Mapping[Path, Count]


@dataclass(slots=True)
class _Wanted:
    """A Pod to be read: what the loop knows of it, and the trees whose sizes are needed."""

    pod: Pod
    started_at: float
    runs: list[tuple[Instance, ContainerRecord]]
    trees: list[Path] = field(default_factory=list)


class UsageReader:
    """Implements the server's ``StatsSource``; the eviction manager's eyes."""

    def __init__(
        self,
        manager: PodManager,
        runtime: Containers,
        config: AgentConfig,
        image_usage: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.time,
        written: Callable[[], Awaitable[Mapping[str, Count]]] | None = None,
    ) -> None:
        """Look at the manager's Pods; ``image_usage`` gives bytes and entries of the image store, and may block.

        ``written`` gives what containers have written, by id, where only the runtime knows.
        """
        self._manager, self._runtime, self._config = manager, runtime, config
        self._image_usage, self._clock = image_usage, clock
        self._written = written
        self.disks = DiskCounter(clock)
        self._rates = Rates()
        self._begun = clock()

    async def close(self) -> None:
        """End what runs in threads."""
        await self.disks.close()

    async def node(self) -> NodeUsage:
        """Read what eviction's signals need, and no more: some small files and two statvfs."""
        return await asyncio.to_thread(self._node, NodeUsage(self._clock(), Usage(), []))

    async def usage(self) -> NodeUsage:
        """Read all usage now, rates and disk usage too; what has ended meanwhile is left out."""
        usage = await self.pods(lambda pod: True)
        await self._rates.fill(usage, lambda: asyncio.to_thread(self._cpu, usage), time.monotonic)
        return usage

    async def cgroups(self) -> NodeUsage:
        """Read everything but disk usage."""
        return await self.pods(lambda pod: False)

    async def pods(self, with_disk: Callable[[Pod], bool], fresh: float = OLDEST) -> NodeUsage:
        """Read the usage of all Pods, and what those use of disks that ``with_disk`` accepts.

        Disk usage is at most ``fresh`` seconds old, or as old as its cost allows (see ``DiskCounter``).
        """
        records = {record.id: record for record in await self._runtime.list()}
        # What is read is decided in the loop, which alone may look at the workers; the files are read in a thread.
        wanted = []
        for worker in self._manager.workers.values():
            runs = [
                (run, records[run.id])
                for run in worker.state.all_instances()
                if run.state == "running" and run.id in records
            ]
            wanted.append(_Wanted(worker.pod, worker.state.start_time, runs))
        for one in wanted:
            if with_disk(one.pod):
                one.trees = await asyncio.to_thread(self._trees, one)
        trees = [tree for one in wanted for tree in one.trees]
        counts = await self.disks.counts(trees, fresh=fresh) if trees else {}
        told = await self._written() if trees and self._written is not None else {}
        return await asyncio.to_thread(self._read, wanted, counts, told)

    def _trees(self, wanted: _Wanted) -> list[Path]:
        trees = [self._volume(wanted.pod, plugin, name) for plugin, name in self._volumes(wanted.pod)]
        for run, record in wanted.runs:
            upper = self._runtime.upper(run.id)
            trees += [*([upper] if upper is not None else []), Path(record.spec.log_path).parent]
        return trees

    def _volumes(self, pod: Pod) -> list[tuple[str, str]]:
        names = {volume.name for volume in pod.spec.volumes}
        root = self._config.state / "pods" / pod.metadata.uid / "volumes"
        found = []
        for plugin in _COUNTED:
            try:
                found += [(plugin, entry.name) for entry in os.scandir(root / f"kubernetes.io~{plugin}")]
            except OSError:
                continue
        return [(plugin, name) for plugin, name in found if name in names]

    def _volume(self, pod: Pod, plugin: str, name: str) -> Path:
        return self._config.state / "pods" / pod.metadata.uid / "volumes" / f"kubernetes.io~{plugin}" / name

    def _read(self, wanted: Sequence[_Wanted], counts: Counts, told: Mapping[str, Count]) -> NodeUsage:
        usage = self._node(NodeUsage(self._clock(), Usage(), []))
        for one in wanted:
            try:
                usage.pods.append(self._pod(one, counts, told))
            except OSError:
                continue  # it has just ended, or is not there yet
        sizes = [c.rootfs.used or 0 for pod in usage.pods for c in pod.containers if c.rootfs is not None]
        entries = [c.rootfs.inodes_used or 0 for pod in usage.pods for c in pod.containers if c.rootfs is not None]
        try:
            usage.container_fs = host.file_system(self._runtime.layers, usage.time, sum(sizes), sum(entries))
            usage.image_fs = host.file_system(Path(self._config.image_root), usage.time, *self._image_usage())
        except OSError:
            pass  # no store yet: what was read of the file system stays
        return usage

    def _node(self, usage: NodeUsage) -> NodeUsage:
        config, cgroups, root = self._config, self._runtime.cgroups, self._runtime.cgroup_root
        usage.usage = host.usage(cgroups)
        usage.processes = host.processes()
        usage.fs = host.file_system(config.state, usage.time)
        usage.network = host.interfaces(Path("/proc/self/net/dev"))
        try:
            usage.image_fs = host.file_system(Path(config.image_root), usage.time)
            usage.container_fs = host.file_system(self._runtime.layers, usage.time)
        except OSError:
            pass  # not made yet
        usage.system = [SystemUsage("kubelet", host.own(self._begun))]
        for name, path in (("runtime", self._runtime.monitors_cgroup), ("pods", cgroup_math.kubepods_path(root))):
            try:
                usage.system.append(SystemUsage(name, cgroupfiles.read(cgroups, path, self._begun)))
            except OSError:
                continue  # nothing has run here yet
        return usage

    def _pod(self, wanted: _Wanted, counts: Counts, told: Mapping[str, Count]) -> PodUsage:
        pod, cgroups = wanted.pod, self._runtime.cgroups
        meta = pod.metadata
        path = spec.pod_cgroup(pod, self._runtime.cgroup_root)
        made = PodUsage(
            meta.namespace, meta.name, meta.uid, cgroupfiles.read(cgroups, path, wanted.started_at), [], cgroup=path
        )
        for run, record in wanted.runs:
            try:
                own = cgroupfiles.read(cgroups, record.cgroup, run.started_at)
            except OSError:
                continue
            container = ContainerUsage(run.name, own, id=run.id, image=run.image, cgroup=record.cgroup)
            upper = self._runtime.upper(run.id)
            container.rootfs = _part(counts.get(upper) if upper else told.get(run.id), self._runtime.layers)
            container.logs = _part(counts.get(Path(record.spec.log_path).parent), self._config.logs)
            made.containers.append(container)
            if made.network is None and not pod.spec.host_network:
                made.network = host.interfaces(Path(f"/proc/{record.state.pid}/net/dev"))
        self._storage(made, wanted, counts)
        return made

    def _storage(self, made: PodUsage, wanted: _Wanted, counts: Counts) -> None:
        """Fill in volumes and the sum of what is on the node's disk."""
        local: list[FsUsage] = [part for one in made.containers for part in (one.rootfs, one.logs) if part is not None]
        claims = {
            volume.name: volume.persistent_volume_claim.claim_name
            for volume in wanted.pod.spec.volumes
            if volume.persistent_volume_claim is not None
        }
        for tree in wanted.trees:
            plugin, name = tree.parent.name.removeprefix("kubernetes.io~"), tree.name
            if plugin not in _COUNTED:
                continue
            fs = _part(counts.get(tree), tree)
            if fs is None:
                continue
            made.volumes.append(VolumeUsage(name, fs, claims.get(name, "")))
            if plugin in _ON_NODE_FS and os.lstat(tree).st_dev == os.lstat(tree.parent).st_dev:
                local.append(fs)
        if local:
            sizes, inodes = sum(part.used or 0 for part in local), sum(part.inodes_used or 0 for part in local)
            sizes += shared_files(self._config.state / "pods" / made.uid)
            made.ephemeral = host.file_system(self._config.state, min(p.time for p in local), sizes, inodes)

    def _cpu(self, usage: NodeUsage) -> dict[str, int]:
        """Read the processor time of everything in ``usage`` once more."""
        cgroups = self._runtime.cgroups
        found = {"": host.usage(cgroups).cpu_nanoseconds or 0}
        for path in [*(pod.cgroup for pod in usage.pods), *(c.cgroup for pod in usage.pods for c in pod.containers)]:
            try:
                found[path] = cgroupfiles.read(cgroups, path).cpu_nanoseconds or 0
            except OSError:
                continue
        for one in self._node(NodeUsage(0.0, Usage(), [])).system:
            found[f"system {one.name}"] = one.usage.cpu_nanoseconds or 0
        return found


def shared_files(directory: Path) -> int:
    """Bytes of the files that the agent made for a Pod, and that its containers may write to (CVE-2020-8557)."""
    found = 0
    ends = directory.glob("containers/*/*-termination-log")
    for path in (podfiles.hosts_path(directory), podfiles.resolv_path(directory), *ends):
        with contextlib.suppress(OSError):
            found += path.lstat().st_blocks * 512
    return found


def _part(count: Count | None, where: Path) -> FsUsage | None:
    """What a tree uses, and the file system that it is on; None where nobody knows."""
    if count is None:
        return None
    try:
        return host.file_system(where, count.at, count.size, count.inodes)
    except OSError:
        return None
