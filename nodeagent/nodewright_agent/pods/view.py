"""The pods as kubelet's HTTPS API shows them, and their usage (implements the server's protocols)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nodewright.kube.objects import Pod
from nodewright_agent.config import AgentConfig
from nodewright_agent.eviction import reading
from nodewright_agent.pods import spec
from nodewright_agent.pods.containers import Containers
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.static.manifest import is_mirror
from nodewright_agent.runtime.errors import ContainerNotFound
from nodewright_agent.runtime.images import pullsettings
from nodewright_agent.server.streaming.upgrade import Limits


class AgentPodsView:
    """What the server may know of the pods."""

    def __init__(
        self, manager: PodManager, runtime: Containers, config: AgentConfig, cluster_dns: Callable[[], Sequence[str]]
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
        others = [pod for pod in self._manager.cache.values() if pod.metadata.uid not in own and not is_mirror(pod)]
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
        attempt = self._attempt(pod, container, _bare(container_id))
        if attempt is None:
            return None
        path = spec.log_path(self.log_root, pod, container, attempt)
        return path.relative_to(self.log_root).parts

    async def wait_exited(self, container_id: str) -> None:
        """Return when the container does not run any more."""
        try:
            await self._runtime.wait(_bare(container_id))
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
            "evictionHard": reading.hard(config),
            "evictionSoft": config.eviction_soft,
            "evictionSoftGracePeriod": config.eviction_soft_grace_period,
            "evictionMinimumReclaim": config.eviction_minimum_reclaim,
            "evictionMaxPodGracePeriod": config.eviction_max_pod_grace_period,
            "evictionPressureTransitionPeriod": f"{config.eviction_pressure_transition_period:g}s",
            "imageGCHighThresholdPercent": config.image_gc_high_threshold_percent,
            "imageGCLowThresholdPercent": config.image_gc_low_threshold_percent,
            **pullsettings.configz(config),
            "shutdownGracePeriod": f"{config.shutdown_grace_period:g}s",
            "shutdownGracePeriodCriticalPods": f"{config.shutdown_grace_period_critical_pods:g}s",
            "streamingConnectionIdleTimeout": f"{Limits().idle:g}s",
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
            if _bare(one.container_id) == container_id:
                return one.restart_count
            last = one.last_state.terminated
            if last is not None and _bare(last.container_id) == container_id:
                return max(0, one.restart_count - 1)
        return None


def _bare(container_id: str) -> str:
    """The runtime's own id, of one with the runtime's name before it."""
    return container_id.rpartition("://")[2]
