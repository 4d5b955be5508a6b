"""The pods as kubelet's HTTPS API shows them, and their usage (implements the server's protocols)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nodewright.kube.objects import Pod
from nodewright_agent.config import AgentConfig
from nodewright_agent.pods import spec
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.status import CONTAINER_ID_SCHEME
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroups import CgroupStats
from nodewright_agent.runtime.errors import ContainerNotFound
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.server.view import ContainerUsage, NodeUsage, PodUsage, Usage


class AgentPodsView:
    """What the server may know of the pods."""

    def __init__(
        self, manager: PodManager, runtime: Runtime, config: AgentConfig, cluster_dns: Callable[[], Sequence[str]]
    ) -> None:
        """Look at the manager's pods; `cluster_dns` gives what they have as DNS servers."""
        self._manager, self._runtime, self._config, self._cluster_dns = manager, runtime, config, cluster_dns

    @property
    def log_root(self) -> Path:
        """The directory of all logs."""
        return self._config.logs

    def pods(self) -> Sequence[Pod]:
        """Return all pods of the node with their present status; those that ended long ago as the API has them."""
        own = {pod.metadata.uid: pod for pod in self._manager.pods()}
        others = [pod for pod in self._manager.cache.values() if pod.metadata.uid not in own]
        return [*own.values(), *others]

    def running_pods(self) -> Sequence[Pod]:
        """Return the pods of which a container runs."""
        return [
            worker.current()
            for worker in self._manager.workers.values()
            if any(run.running for run in worker.state.all_instances())
        ]

    def log_parts(self, pod: Pod, container: str, container_id: str) -> tuple[str, ...] | None:
        """Return the path of a run's log below ``log_root``."""
        attempt = self._attempt(pod, container, container_id.removeprefix(CONTAINER_ID_SCHEME))
        if attempt is None:
            return None
        path = spec.log_path(self.log_root, pod, container, attempt)
        return path.relative_to(self.log_root).parts

    async def wait_exited(self, container_id: str) -> None:
        """Return when the container does not run any more."""
        try:
            await self._runtime.wait(container_id.removeprefix(CONTAINER_ID_SCHEME))
        except ContainerNotFound:
            return

    def config(self) -> Mapping[str, Any]:
        """Return the settings under kubelet's names."""
        config = self._config
        return {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": config.bind_address,
            "port": config.port,
            "clusterDomain": config.cluster_domain,
            "clusterDNS": list(self._cluster_dns()),
            "maxPods": config.max_pods,
            "containerLogMaxSize": config.container_log_max_size,
            "containerLogMaxFiles": config.container_log_max_files,
            "nodeLeaseDurationSeconds": config.lease_duration_seconds,
            "cgroupRoot": config.cgroup_root,
            "resolvConf": config.resolv_conf,
            "seccompDefault": True,
            "allowedUnsafeSysctls": config.allowed_unsafe_sysctls,
        }

    def _attempt(self, pod: Pod, container: str, container_id: str) -> int | None:
        worker = self._manager.workers.get(pod.metadata.uid)
        if worker is not None:
            for run in worker.state.all_instances():
                if run.id == container_id:
                    return run.attempt
        # A pod that ended before this agent started: the status tells which run it was.
        status = pod.status
        for one in (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses):
            if one.name != container:
                continue
            if one.container_id == CONTAINER_ID_SCHEME + container_id:
                return one.restart_count
            last = one.last_state.terminated
            if last is not None and last.container_id == CONTAINER_ID_SCHEME + container_id:
                return max(0, one.restart_count - 1)
        return None


class AgentStats:
    """Reads usage from the cgroups of the node, its pods and containers."""

    def __init__(self, manager: PodManager, runtime: Runtime) -> None:
        """Look at the manager's pods."""
        self._manager, self._runtime = manager, runtime

    async def usage(self) -> NodeUsage:
        """Read all usage now; what has ended meanwhile is left out."""
        # What is read is decided in the loop, which alone may look at the workers; the files are read in a thread.
        wanted = [
            (worker.pod, worker.state.start_time, [r for r in worker.state.all_instances() if r.state == "running"])
            for worker in self._manager.workers.values()
        ]
        return await asyncio.to_thread(self._read, wanted)

    def _read(self, wanted: list[tuple[Pod, float, list[Instance]]]) -> NodeUsage:
        root = self._runtime.cgroup_root
        pods = []
        for pod, started_at, runs in wanted:
            meta = pod.metadata
            try:
                usage = _usage(self._runtime.cgroups.stats(spec.pod_cgroup(pod, root)), started_at)
                containers = [
                    ContainerUsage(run.name, _usage(self._runtime.stats(run.id), run.started_at)) for run in runs
                ]
            except (OSError, ContainerNotFound):
                continue
            pods.append(PodUsage(meta.namespace, meta.name, meta.uid, usage, containers))
        try:
            node = _usage(self._runtime.cgroups.stats(cgroup_math.kubepods_path(root)), None)
        except OSError:
            node = Usage()  # nothing has run here yet
        return NodeUsage(time.time(), node, pods)


def _usage(stats: CgroupStats, started_at: float | None) -> Usage:
    return Usage(
        cpu_nanoseconds=stats.cpu_usage_ns,
        memory_working_set_bytes=stats.memory_working_set,
        memory_usage_bytes=stats.memory_usage,
        memory_rss_bytes=stats.memory_rss,
        started_at=started_at,
    )
