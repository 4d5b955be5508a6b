"""What workers do to the host where another runtime runs the containers: sandboxes and containers by CRI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nodewright.kube.objects import Container, Pod
from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods import recovery, refs, resources, spec
from nodewright_agent.pods.common import REFUSALS, Common, CommonOperations, Space, refused
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.ports import StartError
from nodewright_agent.pods.volumes import mounts
from nodewright_agent.remote import config, labels
from nodewright_agent.remote.client import LONG, CallFailed, Client
from nodewright_agent.remote.config import ImageMount, Placing
from nodewright_agent.remote.containers import RemoteContainers
from nodewright_agent.remote.facts import RuntimeFacts
from nodewright_agent.remote.records import Sandbox
from nodewright_agent.runtime.errors import ContainerRuntimeError, RunContainerError, SandboxError
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.userns import UserNamespaces

log = logging.getLogger(__name__)

_AGAIN = 1.0
_ELSEWHERE = SandboxPaths(net=None, ipc=None, uts="", shm="")
"""The runtime has the namespaces."""


@dataclass(slots=True, kw_only=True)
class RemoteParts(Common):
    """The parts of a node whose containers another runtime runs."""

    runtime: RemoteContainers
    client: Client
    users: UserNamespaces
    placing: Placing
    facts: Callable[[], RuntimeFacts]
    up: asyncio.Event
    """Set while the runtime answers."""


class RemoteOperations(CommonOperations):
    """Implements ``ports.Operations`` by CRI."""

    def __init__(self, parts: RemoteParts) -> None:
        """Work with these parts."""
        super().__init__(parts)
        self._parts = parts

    async def create_sandbox(self, pod: Pod) -> tuple[str, ...]:
        """Make cgroup and sandbox; its network, and with it the addresses, come from the runtime."""
        parts, uid = self._parts, pod.metadata.uid
        await parts.classes.choose(pod)
        parts.records.directory(uid).mkdir(exist_ok=True, mode=0o750)
        failpoint("pod.directory")
        cgroup = spec.pod_cgroup(pod, parts.node.cgroup_root)
        parts.runtime.cgroups.create(cgroup, resources.pod_limits(pod, parts.node.cgroups))
        failpoint("pod.cgroup")
        await parts.up.wait()  # as kubelet, which leaves pods alone while the runtime is down
        if not pod.spec.host_network:
            await parts.network_ready.wait()
        if parts.files.need_services(pod):
            await self._services_known(pod)
        sandbox = await self._sandbox(pod)
        ips = await self._addresses(pod, sandbox)
        await self._write_files(pod, ips)
        self._ips[uid] = ips
        return ips

    async def create_container(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        """Build the container's order and have the runtime prepare it; ``run`` gets the runtime's id."""
        parts = self._parts
        sandbox = parts.runtime.newest(pod.metadata.uid)
        if sandbox is None or not sandbox.ready:
            parts.runtime.on_sandbox_lost(pod.metadata.uid)  # it may have been while nobody could be told
            raise StartError("CreateContainerError", "the pod's sandbox is gone")
        try:
            order = await self._order(pod, container, run, ips)
        except REFUSALS as error:
            raise refused(error) from error
        run.image_id = order.annotations[labels.IMAGE_ID]
        spec.log_path(parts.node.log_root, pod, container.name, 0).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        failpoint("container.ordered")
        whole = self._config(pod, sandbox.attempt)
        try:
            record = await parts.runtime.create(sandbox.id, order, whole)
        except ContainerRuntimeError as error:
            raise StartError("CreateContainerError", str(error)) from error
        run.id = record.id
        if order.stop_signal and not record.spec.stop_signal:
            await parts.runtime.delete(run.id)
            text = "lifecycle.stopSignal: the runtime takes a container's stop signal from its image only"
            raise StartError("CreateContainerConfigError", text)
        run.stop_signal = record.spec.stop_signal or "SIGTERM"
        parts.events.event(refs.reference(pod, container.name), "Normal", "Created", "Container created")

    async def start_container(self, pod: Pod, container: Container, run: Instance) -> None:
        """Let the created container go."""
        self._link_log(pod, container, run)
        try:
            run.started_at = await self._parts.runtime.start(run.id)
        except RunContainerError as error:
            raise StartError(error.reason, str(error), ran=True) from error
        except ContainerRuntimeError as error:
            await self._given_up(run)
            raise StartError("RunContainerError", str(error)) from error
        if (record := self._parts.runtime.find(run.id)) is not None:
            run.user = recovery.identity(record)
        self._parts.events.event(refs.reference(pod, container.name), "Normal", "Started", "Container started")

    async def signal(self, pod: Pod, container: Container | None, run: Instance, *, kill: bool) -> None:
        """Have the runtime send the stop signal and wait for the end, or kill.

        CRI has no signals, only StopContainer with a time after which it kills. The time is ours to keep, so the call
        for the stop signal has none; the one that kills overtakes it. An agent that ends hangs up, and the signal
        stays sent.
        """
        if kill:
            await self._parts.runtime.kill(run.id)
            failpoint("stop.killed")
            self._parts.runtime.tell_again(run.id)
            return
        while True:
            try:
                await self._parts.runtime.stop(run.id)
            except CallFailed as error:
                record = self._parts.runtime.find(run.id)
                if record is not None and record.exit is None and not error.down:
                    raise
            if self._parts.runtime.tell_again(run.id):
                return
            await asyncio.sleep(_AGAIN)  # the runtime is down; it may not have sent the signal

    async def resize(self, pod: Pod, runs: list[Instance]) -> None:
        """Bring cgroups to the pod's resources, and tell the runtime what the sandbox has now."""
        await super().resize(pod, runs)
        overhead, given = config.pod_resources(pod, self._parts.node)
        await self._parts.runtime.tell_resources(pod.metadata.uid, overhead, given)

    async def tear_down(self, pod: Pod, runs: list[Instance]) -> None:
        """Remove everything but records and logs."""
        parts, uid = self._parts, pod.metadata.uid
        await parts.runtime.look()  # what a call made that failed is not to be forgotten
        sandboxes = list(parts.runtime.sandboxes.get(uid, ()))
        await asyncio.gather(*(parts.runtime.stop_sandbox(one) for one in sandboxes))
        failpoint("teardown.parts")
        await asyncio.gather(*(parts.runtime.remove_sandbox(one) for one in sandboxes), parts.volumes.teardown(uid))
        for record in parts.runtime.of_pod(uid):  # of a sandbox that somebody else removed
            await parts.runtime.delete(record.id, force=True)
        failpoint("teardown.sandbox")
        await asyncio.to_thread(self._remove_cgroups, uid)
        failpoint("teardown.cgroups")
        self._dropped(uid)

    async def _sandbox(self, pod: Pod) -> Sandbox:
        """The pod's sandbox: the one that is there and ready, or a new one in place of all others."""
        parts, uid = self._parts, pod.metadata.uid
        newest = parts.runtime.newest(uid)
        if newest is not None and newest.ready:
            return newest
        old = list(parts.runtime.sandboxes.get(uid, ()))
        for one in old:
            await parts.runtime.stop_sandbox(one)
            await parts.runtime.remove_sandbox(one)
        attempt = newest.attempt + 1 if newest is not None else 0
        handler = parts.classes.handler(pod)
        if pod.spec.host_users is False and not parts.facts().user_namespaces(handler):
            raise SandboxError(f'runtime handler "{handler}" does not support user namespaces')
        if pod.spec.host_users is False and pod.spec.host_network and not parts.facts().user_namespaces_host_network:
            raise SandboxError("the runtime does not support user namespaces with the host's network")
        if pod.spec.host_users is False:
            parts.users.claim(uid)
        spec.log_directory(parts.node.log_root, pod).mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            answer = await parts.client.runtime(
                "RunPodSandbox", deadline=LONG, config=self._config(pod, attempt), runtime_handler=handler
            )
        except CallFailed:
            await self._looked()
            raise
        failpoint("sandbox.made")
        made = Sandbox(answer.pod_sandbox_id, uid, attempt, ready=True, created_at=0)
        parts.runtime.add_sandbox(made)
        return made

    def _config(self, pod: Pod, attempt: int) -> object:
        """The sandbox's config, which goes with every call that makes something in it."""
        parts = self._parts
        hostname = parts.files.hostname(pod)
        dns, _ = parts.files.dns(pod)
        return config.sandbox(pod, attempt, hostname, dns, parts.users.get(pod.metadata.uid), parts.placing)

    async def _addresses(self, pod: Pod, sandbox: Sandbox) -> tuple[str, ...]:
        if pod.spec.host_network:
            return ()
        answer = await self._parts.client.runtime("PodSandboxStatus", pod_sandbox_id=sandbox.id)
        network = answer.status.network
        ips = tuple(ip for ip in (network.ip, *(one.ip for one in network.additional_ips)) if ip)
        if not ips:
            raise SandboxError(f"the runtime gave sandbox {sandbox.id} no address")
        return ips

    async def _order(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> Any:
        parts, uid = self._parts, pod.metadata.uid
        await self._services_known(pod)
        hostname = parts.files.hostname(pod)
        around = await self._surroundings(pod, container, run, ips, hostname)
        shown = self._image_mounts(pod, container, around.values)
        where = Space(paths=_ELSEWHERE, hostname=hostname, ids=parts.users.get(uid), not_ours=shown)
        inputs = self._inputs(pod, container, run, around, where)
        target = self._target(pod, container)
        return config.container(
            inputs,
            parts.placing,
            target=target,
            images=[one for several in shown.values() for one in several],
            program_user=inputs.image.config.user,
        )

    def _image_mounts(self, pod: Pod, container: Container, values: dict[str, str]) -> dict[str, list[ImageMount]]:
        """The image volumes that a container mounts, by volume. Raises StartError."""
        images = self._volume_images.get((pod.metadata.uid, container.name), {})
        if images and (problem := self._parts.facts().no_image_volumes):
            raise StartError("CreateContainerConfigError", problem)
        found: dict[str, list[ImageMount]] = {}
        for mount in container.volume_mounts:
            if mount.name in images:
                one = ImageMount(mount.mount_path, images[mount.name], mounts.sub_path(mount, values))
                found.setdefault(mount.name, []).append(one)
        return found

    def _target(self, pod: Pod, container: Container) -> str:
        """The id of the container whose processes an ephemeral one sees; empty: none. Raises StartError."""
        name = container.target_container_name
        if not name or pod.spec.host_pid or pod.spec.share_process_namespace:
            return ""
        found = [one for one in self._parts.runtime.of_pod(pod.metadata.uid) if one.spec.name == name and one.running]
        newest = max(found, key=lambda one: one.state.created_at, default=None)
        if newest is None:
            raise StartError("CreateContainerConfigError", f"unable to find target container {name}")
        return newest.id

    async def _given_up(self, run: Instance) -> None:
        """A start without an answer: what it made goes, so that the next try finds the name free."""
        try:
            await self._parts.runtime.delete(run.id, force=True)
        except CallFailed as error:
            log.warning("a container that was not started cannot be removed: %s", error, extra={"container": run.id})

    async def _looked(self) -> None:
        """After a call that failed: find what it made all the same."""
        try:
            await self._parts.runtime.look()
        except CallFailed as error:
            log.warning("what a failed call has made cannot be looked for: %s", error)
