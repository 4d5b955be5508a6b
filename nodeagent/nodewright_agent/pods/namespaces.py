"""What the containers of a pod share: namespaces, a range of ids, and, where it is asked for, their processes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.ports import StartError
from nodewright_agent.pods.records import Records
from nodewright_agent.runtime import pause
from nodewright_agent.runtime.errors import SandboxError
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes, SandboxPaths
from nodewright_agent.runtime.spec import ContainerRecord, IdRange
from nodewright_agent.runtime.userns import UserNamespaces

PAUSE_LOG = "pause.log"
_SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Shared:
    """A pod's sandbox as its containers get it."""

    paths: SandboxPaths
    ids: IdRange | None
    pid_ns: str | None
    """Path of the process namespace of all; None: each container has its own, or the host's."""


def whole(runtime: Runtime, sandboxes: Sandboxes, uid: str) -> bool:
    """Whether all of a pod's namespaces are there: after a reboot, or the end of a shared first process, not."""
    if sandboxes.get(uid) is None:
        return False
    cid = pause.container_id(uid)
    return sandboxes.processes(uid, _SHARED) is None or runtime.alive(cid)


class PodNamespaces:
    """Makes, finds and removes them. The pod's cgroup must exist."""

    def __init__(self, runtime: Runtime, sandboxes: Sandboxes, records: Records, users: UserNamespaces) -> None:
        """Work with these parts."""
        self._runtime, self._sandboxes, self._records, self._users = runtime, sandboxes, records, users

    async def create(self, pod: Pod, hostname: str, sysctls: Mapping[str, str], cgroup: str) -> SandboxPaths:
        """Make all of it, or what is missing of it. Raises SandboxError, ContainerRuntimeError, OSError."""
        uid, spec = pod.metadata.uid, pod.spec
        ids = self._users.claim(uid) if spec.host_users is False else None
        paths = await self._sandboxes.create(
            uid, hostname, sysctls, network=not spec.host_network, ipc=not spec.host_ipc, ids=ids
        )
        if spec.share_process_namespace:
            log = self._records.directory(uid) / PAUSE_LOG
            meta = pod.metadata
            await self._pause(pause.PausedPod(uid, meta.name, meta.namespace, paths, cgroup, log, ids))
        return paths

    def find(self, pod: Pod) -> Shared | None:
        """What there is of it, if it is whole: after a reboot, and without its first process, it is not."""
        uid = pod.metadata.uid
        paths = self._sandboxes.get(uid)
        if paths is None or not whole(self._runtime, self._sandboxes, uid):
            return None
        processes = self._sandboxes.processes(uid, _SHARED)
        if pod.spec.share_process_namespace and processes is None:
            return None
        return Shared(paths, self._users.get(uid), processes)

    def processes_of(self, pod: Pod, container: Container, shared: Shared) -> str | None:
        """Whose processes a container sees: a path, ``host``, or None for its own. Raises ``StartError``."""
        if pod.spec.host_pid:
            return "host"
        if shared.pid_ns is not None or not container.target_container_name:
            return shared.pid_ns
        name = container.target_container_name
        target = self._newest(pod.metadata.uid, name)
        if target is None:
            raise StartError("CreateContainerConfigError", f"unable to find target container {name}")
        try:
            return self._sandboxes.pin_processes(
                pod.metadata.uid, f"of-{name}", target.state.pid, lambda: self._runtime.alive(target.id)
            )
        except SandboxError as error:
            raise StartError("CreateContainerError", str(error)) from error

    async def remove(self, uid: str) -> None:
        """End and remove all of it; idempotent."""
        await self._runtime.delete(pause.container_id(uid), force=True)
        await self._sandboxes.remove(uid)

    async def _pause(self, pod: pause.PausedPod) -> None:
        cid = pause.container_id(pod.uid)
        if not self._runtime.alive(cid):
            await self._runtime.delete(cid, force=True)
            layer = await asyncio.to_thread(pause.layer, self._runtime.layout.run)
            try:
                order = pause.spec(pod, layer)
            except ValueError as error:
                raise SandboxError(f"shareProcessNamespace: {error}") from error
            pod.log.parent.mkdir(mode=0o750, exist_ok=True)
            await self._runtime.create(order)
            await self._runtime.start(cid)
        if (record := self._runtime.find(cid)) is None:
            raise SandboxError("the pause process has ended at once")
        self._sandboxes.pin_processes(pod.uid, _SHARED, record.state.pid, lambda: self._runtime.alive(cid))

    def _newest(self, uid: str, name: str) -> ContainerRecord | None:
        found = [one for one in self._runtime.of_pod(uid) if one.spec.name == name and self._runtime.alive(one.id)]
        return max(found, key=lambda one: one.state.created_at, default=None)
