"""What workers do to the host, put together from runtime, sandboxes, network, volumes and images."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nodewright.kube.errors import ApiError
from nodewright.kube.objects import Container, LifecycleHandler, Pod, Service
from nodewright_agent.failpoints import failpoint
from nodewright_agent.network import hostports
from nodewright_agent.network.hostports import PortMapping
from nodewright_agent.pods import endmessage, env, hooks, podfiles, recovery, refs, resources, spec
from nodewright_agent.pods.handlers import Answer
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.namespaces import PodNamespaces
from nodewright_agent.pods.podfiles import PodFiles
from nodewright_agent.pods.ports import Events, StartError
from nodewright_agent.pods.pulling import ImagePuller
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.resize import actuate
from nodewright_agent.pods.runtimeclass import RuntimeClassError, RuntimeClasses
from nodewright_agent.pods.static.manifest import is_static
from nodewright_agent.pods.volumes import imagevolumes
from nodewright_agent.pods.volumes.errors import FailedMount, MountError
from nodewright_agent.pods.volumes.manager import VolumeManager
from nodewright_agent.pods.volumes.plugin import VolumeContext
from nodewright_agent.runtime import cgroup_math, pause
from nodewright_agent.runtime.errors import ContainerNotFound, ContainerRuntimeError, RunContainerError
from nodewright_agent.runtime.images.model import Image
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


@dataclass(slots=True)
class Parts:
    """The parts that operations are made of."""

    runtime: Runtime
    sandboxes: Sandboxes
    users: UserNamespaces
    network: Network
    volumes: VolumeManager
    puller: ImagePuller
    classes: RuntimeClasses
    files: PodFiles
    records: Records
    events: Events
    node: spec.NodeSettings
    host_ips: tuple[str, ...]
    allocatable: Callable[[], dict[str, str]]
    node_name: str
    node_labels: Callable[[], dict[str, str] | None]
    services: Callable[[], Iterable[Service]]
    network_ready: asyncio.Event = field(default_factory=asyncio.Event)
    services_ready: asyncio.Event = field(default_factory=asyncio.Event)


class PodOperations:
    """Implements ``ports.Operations`` on the real host."""

    def __init__(self, parts: Parts) -> None:
        """Work with these parts."""
        self._parts = parts
        self._namespaces = PodNamespaces(parts.runtime, parts.sandboxes, parts.records, parts.users)
        self._volumes: dict[str, dict[str, Path]] = {}
        self._images: dict[tuple[str, str], Image] = {}
        self._volume_images: dict[tuple[str, str], dict[str, Image]] = {}
        self._ips: dict[str, tuple[str, ...]] = {}

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
        if parts.files.need_services(pod):
            await self._services_known(pod)
        for reason, text in parts.files.write(pod, parts.records.directory(uid), ips or parts.host_ips):
            parts.events.event(refs.reference(pod), "Warning", reason, text)
        failpoint("pod.files")
        self._ips[uid] = ips
        return ips

    async def set_up_volumes(self, pod: Pod) -> None:
        """Make all volumes; those of a pod that runs already become current again."""
        parts = self._parts
        context = VolumeContext(parts.allocatable(), parts.node_name, parts.node_labels())
        self._volumes[pod.metadata.uid] = await self._parts.volumes.setup(pod, context)
        failpoint("pod.volumes")

    def pod_changed(self, pod: Pod) -> None:
        """Bring volumes that show the pod's own fields up to date."""
        self._parts.volumes.update(pod)

    async def ensure_image(self, pod: Pod, container: Container) -> None:
        """Find or pull the image, and those of the image volumes that the container mounts."""
        parts, uid = self._parts, pod.metadata.uid
        self._images[uid, container.name] = await parts.puller.ensure(pod, container)
        self._volume_images[uid, container.name] = await imagevolumes.ensure(parts.puller, pod, container)
        failpoint("pod.image")

    def next_attempt(self, pod: Pod, container: Container) -> int:
        """Return one more than the highest run that left a log."""
        directory = spec.log_path(self._parts.node.log_root, pod, container.name, 0).parent
        numbers = [int(path.name.partition(".")[0]) for path in directory.glob("[0-9]*.log*")]
        return max(numbers, default=-1) + 1

    async def create_container(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        """Build the container's order and have the runtime prepare it."""
        parts = self._parts
        try:
            order = await self._order(pod, container, run, ips)
        except MountError as error:
            raise StartError(error.reason, str(error)) from error
        except FailedMount as error:
            raise StartError("CreateContainerConfigError", str(error)) from error
        except (env.CreateContainerConfigError, ApiError, RuntimeClassError, ValueError, OSError) as error:
            raise StartError("CreateContainerConfigError", str(error)) from error
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
        try:
            run.started_at = await self._parts.runtime.start(run.id)
        except ContainerRuntimeError as error:
            raise _start_error(error) from error
        self._parts.events.event(refs.reference(pod, container.name), "Normal", "Started", "Container started")

    async def post_start(self, pod: Pod, container: Container, run: Instance) -> None:
        """Run the postStart hook."""
        hook = container.lifecycle.post_start if container.lifecycle is not None else None
        if hook is not None:
            answer = await self._run_hook(pod, hook, container, run)
            failpoint("poststart.done")
            if not answer.ok:
                raise StartError("PostStartHookError", answer.text)

    async def pre_stop(self, pod: Pod, container: Container, run: Instance) -> None:
        """Run the preStop hook; its failure is told, and changes nothing."""
        hook = container.lifecycle.pre_stop if container.lifecycle is not None else None
        if hook is not None:
            answer = await self._run_hook(pod, hook, container, run)
            failpoint("prestop.done")
            if not answer.ok:
                reference = refs.reference(pod, container.name)
                self._parts.events.event(reference, "Warning", "FailedPreStopHook", "PreStopHook failed")

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

    def end_message(self, pod: Pod, container: Container | None, run: Instance) -> str:
        """Return the termination message."""
        directory = self._parts.records.directory(pod.metadata.uid)
        path = endmessage.message_file(directory, run.name, run.attempt)
        log = spec.log_path(self._parts.node.log_root, pod, run.name, run.attempt)
        return endmessage.read(path, log, container, run.exit_code)

    async def remove_container(self, run: Instance) -> None:
        """Remove an ended run."""
        await self._parts.runtime.delete(run.id, force=True)
        failpoint("container.removed")

    async def resize(self, pod: Pod, runs: list[Instance]) -> None:
        """Bring cgroups to the pod's resources."""
        node = self._parts.node
        cgroup = spec.pod_cgroup(pod, node.cgroup_root)
        await actuate.actuate(self._parts.runtime, pod, runs, cgroup, node.cgroups)

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
        self._volumes.pop(uid, None)
        self._ips.pop(uid, None)
        for held in (self._images, self._volume_images):
            for key in [key for key in held if key[0] == uid]:
                del held[key]

    async def forget(self, pod: Pod, *, keep_logs: bool = False) -> None:
        """Remove records and logs."""
        if not keep_logs:
            await asyncio.to_thread(self._remove_logs, pod.metadata.uid)
            failpoint("forget.logs")
        await asyncio.to_thread(self._parts.records.remove, pod.metadata.uid)
        failpoint("forget.record")

    async def _services_known(self, pod: Pod) -> None:
        """Upstream's promise: a container sees all Services that existed before it. Static pods do without the API."""
        if not is_static(pod):
            await self._parts.services_ready.wait()

    def _remove_logs(self, uid: str) -> None:
        # By the end of their names: of a pod without a record we do not know the rest.
        for directory in self._parts.node.log_root.iterdir():
            if directory.name.endswith(f"_{uid}"):
                shutil.rmtree(directory, ignore_errors=True)

    def _remove_cgroups(self, uid: str) -> None:
        # In every QoS class: of a pod without a record we do not know which it had.
        for qos in cgroup_math.QosClass:
            path = cgroup_math.pod_path(self._parts.node.cgroup_root, qos, uid)
            self._parts.runtime.cgroups.remove(path)

    async def _run_hook(self, pod: Pod, hook: LifecycleHandler, container: Container, run: Instance) -> Answer:
        def tell(type: str, reason: str, message: str) -> None:
            self._parts.events.event(refs.reference(pod, container.name), type, reason, message)

        host = self._host(pod)
        return await hooks.run(self._parts.runtime, hook, container, run.id, host, refs.display(pod), tell)

    def _host(self, pod: Pod) -> str:
        """Return where the pod's servers are reached."""
        ips = self._ips.get(pod.metadata.uid) or tuple(entry.ip for entry in pod.status.pod_ips)
        return next(iter(ips or self._parts.host_ips), "127.0.0.1")

    async def _order(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> ContainerSpec:
        parts, uid = self._parts, pod.metadata.uid
        directory = parts.records.directory(uid)
        await self._services_known(pod)
        hostname = parts.files.hostname(pod)
        context = env.EnvContext(ips or parts.host_ips, parts.host_ips, hostname, parts.allocatable())
        if any(mount.name not in self._volumes.get(uid, {}) for mount in container.volume_mounts):
            await self.set_up_volumes(pod)  # an ephemeral container may be the first to use a volume
        images = self._volume_images.get((uid, container.name), {})
        space = parts.sandboxes.get(uid)
        for name, image in images.items():
            await parts.volumes.mount_image(pod, name, image, space.user if space is not None else None)
        sources = await parts.volumes.env_sources(pod, container)
        variables = env.container_env(pod, container, sources, parts.services(), context)
        values = dict(variables)
        message = endmessage.message_file(directory, container.name, run.attempt)
        endmessage.prepare(message)
        shared = self._namespaces.find(pod)
        if shared is None:
            raise StartError("CreateContainerError", "the pod's sandbox is gone")
        found = parts.volumes.mounts_for(pod, container, self._volumes.get(uid, {}), values)
        run.recursive = [mount.destination for mount in found if "rro" in mount.options]
        run.volume_images = {name: imagevolumes.reference(image) for name, image in images.items()}
        inputs = spec.Inputs(
            pod=pod,
            container=container,
            run=run,
            image=self._images[uid, container.name],
            env=variables,
            sandbox=spec.Sandbox(
                shared.paths,
                hostname,
                podfiles.hosts_path(directory),
                podfiles.resolv_path(directory),
                ids=shared.ids,
            ),
            pid_ns=self._namespaces.processes_of(pod, container, shared),
            volume_mounts=found,
            devices=parts.volumes.devices_for(pod, container),
            message_file=message,
            program=parts.classes.program(pod),
            expand=lambda text: env.expand(text, values.get),
        )
        return spec.container_spec(inputs, parts.node)


def _start_error(error: ContainerRuntimeError) -> StartError:
    ran = isinstance(error, RunContainerError)
    return StartError(error.reason if ran else "CreateContainerError", str(error), ran=ran)
