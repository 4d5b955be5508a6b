"""What workers do to the host, put together from runtime, sandboxes, network, volumes and images."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nodewright.kube.objects import Container, Pod
from nodewright_agent.failpoints import failpoint
from nodewright_agent.network import hostports
from nodewright_agent.network.hostports import PortMapping
from nodewright_agent.pods import recovery, refs, resources, spec
from nodewright_agent.pods.common import REFUSALS, Common, CommonOperations, Space, refused
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.namespaces import PodNamespaces
from nodewright_agent.pods.ports import StartError
from nodewright_agent.runtime import pause
from nodewright_agent.runtime.errors import ContainerNotFound, ContainerRuntimeError, RunContainerError
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import ContainerSpec
from nodewright_agent.runtime.userns import UserNamespaces


class Address(Protocol):
    """What the network gives a pod."""

    @property
    def ip(self) -> str:
        """The pod's address."""


class Network(Protocol):
    """What is needed of the pod network."""

    async def attach(self, pod_uid: str, netns: Path) -> Address:
        """Give a sandbox its link and address; the same again for a pod that has one."""

    async def publish(self, pod_uid: str, wanted: list[PortMapping]) -> None:
        """Open host ports of an attached pod."""

    async def detach(self, pod_uid: str) -> None:
        """Take all of it back."""


@dataclass(slots=True, kw_only=True)
class Parts(Common):
    """The parts of a node that runs its containers itself."""

    runtime: Runtime
    sandboxes: Sandboxes
    users: UserNamespaces
    network: Network


class PodOperations(CommonOperations):
    """Implements ``ports.Operations`` on the real host."""

    def __init__(self, parts: Parts) -> None:
        """Work with these parts."""
        super().__init__(parts)
        self._parts = parts
        self._namespaces = PodNamespaces(parts.runtime, parts.sandboxes, parts.records, parts.users)

    async def create_sandbox(self, pod: Pod) -> tuple[str, ...]:
        """Make cgroup, namespaces, network and files."""
        parts, uid = self._parts, pod.metadata.uid
        parts.runtime.prewarm()  # a container follows within milliseconds
        hostname = parts.files.hostname(pod)
        await parts.classes.choose(pod)
        # First of all: a pod's directory is what tells the next agent that there is something of it.
        parts.records.directory(uid).mkdir(exist_ok=True, mode=0o750)
        failpoint("pod.directory")
        cgroup = spec.pod_cgroup(pod, parts.node.cgroup_root)
        parts.runtime.cgroups.create(cgroup, resources.pod_limits(pod, parts.node.cgroups))
        failpoint("pod.cgroup")
        context = pod.spec.security_context
        sysctls = {item.name: item.value for item in context.sysctls} if context is not None else {}
        own_network = not pod.spec.host_network
        paths = await self._namespaces.create(pod, hostname, sysctls, cgroup)
        ips: tuple[str, ...] = ()
        if own_network:
            await parts.network_ready.wait()
            assert paths.net is not None
            ips = ((await parts.network.attach(uid, Path(paths.net))).ip,)
            if ports := hostports.mappings(pod, ips[0]):
                await parts.network.publish(uid, ports)
        await self._write_files(pod, ips)
        self._ips[uid] = ips
        return ips

    async def create_container(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        """Build the container's order and have the runtime prepare it."""
        parts = self._parts
        try:
            order = await self._order(pod, container, run, ips)
        except REFUSALS as error:
            raise refused(error) from error
        run.image_id = order.labels[spec.LABEL_IMAGE_ID]
        run.stop_signal = order.stop_signal
        Path(order.log_path).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        failpoint("container.ordered")
        try:
            await parts.runtime.create(order)
        except ContainerRuntimeError as error:
            raise _start_error(error) from error
        if (record := parts.runtime.find(run.id)) is not None:
            run.user = recovery.identity(record)
        parts.events.event(refs.reference(pod, container.name), "Normal", "Created", "Container created")

    async def start_container(self, pod: Pod, container: Container, run: Instance) -> None:
        """Let the created process go."""
        self._link_log(pod, container, run)
        try:
            run.started_at = await self._parts.runtime.start(run.id)
        except ContainerRuntimeError as error:
            raise _start_error(error) from error
        self._parts.events.event(refs.reference(pod, container.name), "Normal", "Started", "Container started")

    async def signal(self, pod: Pod, container: Container | None, run: Instance, *, kill: bool) -> None:
        """Send the stop signal, or SIGKILL."""
        try:
            await self._parts.runtime.kill(run.id, "KILL" if kill else run.stop_signal)
        except ContainerNotFound:
            return  # it has ended, and was removed
        if kill:
            failpoint("stop.killed")
        else:
            failpoint("stop.signalled")

    async def tear_down(self, pod: Pod, runs: list[Instance]) -> None:
        """Remove everything but records and logs."""
        parts, uid = self._parts, pod.metadata.uid
        # Also runs that nobody counts any more: an earlier agent was killed before it had removed them.
        found = {run.id for run in runs} | {record.id for record in parts.runtime.of_pod(uid)}
        # The processes are gone, so nothing of these three holds up another.
        await asyncio.gather(
            *(parts.runtime.delete(cid, force=True) for cid in sorted(found - {pause.container_id(uid)})),
            parts.network.detach(uid),
            parts.volumes.teardown(uid),
        )
        failpoint("teardown.parts")
        await self._namespaces.remove(uid)
        failpoint("teardown.sandbox")
        await asyncio.to_thread(self._remove_cgroups, uid)
        failpoint("teardown.cgroups")
        self._dropped(uid)

    async def _order(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> ContainerSpec:
        parts, uid = self._parts, pod.metadata.uid
        await self._services_known(pod)
        hostname = parts.files.hostname(pod)
        around = await self._surroundings(pod, container, run, ips, hostname)
        images = self._volume_images.get((uid, container.name), {})
        space = parts.sandboxes.get(uid)
        for name, image in images.items():
            await parts.volumes.mount_image(pod, name, image, space.user if space is not None else None)
        shared = self._namespaces.find(pod)
        if shared is None:
            raise StartError("CreateContainerError", "the pod's sandbox is gone")
        where = Space(
            paths=shared.paths,
            hostname=hostname,
            ids=shared.ids,
            processes=self._namespaces.processes_of(pod, container, shared),
            program=parts.classes.program(pod),
        )
        return spec.container_spec(self._inputs(pod, container, run, around, where), parts.node)


def _start_error(error: ContainerRuntimeError) -> StartError:
    ran = isinstance(error, RunContainerError)
    return StartError(error.reason if ran else "CreateContainerError", str(error), ran=ran)
