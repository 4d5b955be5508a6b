"""The part of the workers' operations that is the same whoever runs the containers: volumes, images, hooks, records."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nodewright.kube.errors import ApiError
from nodewright.kube.objects import Container, LifecycleHandler, Pod, Service
from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods import endmessage, env, hooks, loglinks, podfiles, refs, spec
from nodewright_agent.pods.containers import Containers
from nodewright_agent.pods.handlers import Answer
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.podfiles import PodFiles
from nodewright_agent.pods.ports import Events, StartError
from nodewright_agent.pods.pulling import ImagePuller
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.recovery import Found
from nodewright_agent.pods.resize import actuate
from nodewright_agent.pods.runtimeclass import RuntimeClassError, RuntimeClasses
from nodewright_agent.pods.static.manifest import is_static
from nodewright_agent.pods.volumes import imagevolumes
from nodewright_agent.pods.volumes.errors import FailedMount, MountError
from nodewright_agent.pods.volumes.manager import VolumeManager
from nodewright_agent.pods.volumes.plugin import VolumeContext
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import IdRange


@dataclass(slots=True, kw_only=True)
class Common:
    """The parts that operations are made of."""

    runtime: Containers
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

    async def found(self, sandboxes: Iterable[str], whole: frozenset[str]) -> Found:
        """What an earlier agent left; ``sandboxes``: the UIDs of pods that have any, ``whole``: of those as good."""
        written = frozenset(uid for uid in whole if podfiles.complete(self.records.directory(uid)))
        traces = frozenset([*sandboxes, *self.volumes.known(), *self.records.uids()])
        return Found(self.records.load(), await self.runtime.list(), whole, written, traces)


@dataclass(slots=True)
class Surroundings:
    """What a run finds beside its image: variables and their values by name, and its termination message's file."""

    variables: list[tuple[str, str]]
    values: dict[str, str]
    message: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Where a run is put: the pod's namespaces, and who mounts what."""

    paths: SandboxPaths
    hostname: str
    ids: IdRange | None
    """What the pod's user namespace maps; None: it has none."""
    processes: str | None = None
    """Whose processes the run sees, as ``spec.Inputs`` has it."""
    program: str = ""
    """The OCI runtime; empty: the node's own."""
    not_ours: Collection[str] = ()
    """Names of the volumes that somebody else mounts."""


class CommonOperations:
    """The half of ``ports.Operations`` for which it does not matter who runs the containers."""

    def __init__(self, common: Common) -> None:
        """Work with these parts."""
        self._common = common
        self._volumes: dict[str, dict[str, Path]] = {}
        self._images: dict[tuple[str, str], Image] = {}
        self._volume_images: dict[tuple[str, str], dict[str, Image]] = {}
        self._ips: dict[str, tuple[str, ...]] = {}

    async def set_up_volumes(self, pod: Pod) -> None:
        """Make all volumes; those of a pod that runs already become current again."""
        parts = self._common
        context = VolumeContext(parts.allocatable(), parts.node_name, parts.node_labels())
        self._volumes[pod.metadata.uid] = await parts.volumes.setup(pod, context)
        failpoint("pod.volumes")

    def pod_changed(self, pod: Pod) -> None:
        """Bring volumes that show the pod's own fields up to date."""
        self._common.volumes.update(pod)

    async def ensure_image(self, pod: Pod, container: Container) -> None:
        """Find or pull the image, and those of the image volumes that the container mounts."""
        parts, uid = self._common, pod.metadata.uid
        self._images[uid, container.name] = await parts.puller.ensure(pod, container)
        self._volume_images[uid, container.name] = await imagevolumes.ensure(parts.puller, pod, container)
        failpoint("pod.image")

    def next_attempt(self, pod: Pod, container: Container) -> int:
        """Return one more than the highest run that left a log."""
        directory = spec.log_path(self._common.node.log_root, pod, container.name, 0).parent
        numbers = [int(path.name.partition(".")[0]) for path in directory.glob("[0-9]*.log*")]
        return max(numbers, default=-1) + 1

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
                self._common.events.event(reference, "Warning", "FailedPreStopHook", "PreStopHook failed")

    def end_message(self, pod: Pod, container: Container | None, run: Instance) -> str:
        """Return the termination message."""
        directory = self._common.records.directory(pod.metadata.uid)
        path = endmessage.message_file(directory, run.name, run.attempt)
        log = spec.log_path(self._common.node.log_root, pod, run.name, run.attempt)
        return endmessage.read(path, log, container, run.exit_code)

    async def remove_container(self, run: Instance) -> None:
        """Remove an ended run."""
        await self._common.runtime.delete(run.id, force=True)
        failpoint("container.removed")

    async def resize(self, pod: Pod, runs: list[Instance]) -> None:
        """Bring cgroups to the pod's resources."""
        node = self._common.node
        cgroup = spec.pod_cgroup(pod, node.cgroup_root)
        await actuate.actuate(self._common.runtime, pod, runs, cgroup, node.cgroups)

    async def forget(self, pod: Pod, *, keep_logs: bool = False) -> None:
        """Remove records and logs."""
        if not keep_logs:
            await asyncio.to_thread(self._remove_logs, pod.metadata.uid)
            failpoint("forget.logs")
        await asyncio.to_thread(self._common.records.remove, pod.metadata.uid)
        failpoint("forget.record")

    async def _services_known(self, pod: Pod) -> None:
        """Upstream's promise: a container sees all Services that existed before it. Static pods do without the API."""
        if not is_static(pod):
            await self._common.services_ready.wait()

    async def _write_files(self, pod: Pod, ips: tuple[str, ...]) -> None:
        """Write the pod's own files, and tell of what had to be left out."""
        parts = self._common
        if parts.files.need_services(pod):
            await self._services_known(pod)
        directory = parts.records.directory(pod.metadata.uid)
        for reason, text in parts.files.write(pod, directory, ips or parts.host_ips):
            parts.events.event(refs.reference(pod), "Warning", reason, text)
        failpoint("pod.files")

    def _link_log(self, pod: Pod, container: Container, run: Instance) -> None:
        """Show a run's log where log collectors look, before it has written anything."""
        node = self._common.node
        if node.log_links is not None:
            target = spec.log_path(node.log_root, pod, container.name, run.attempt)
            loglinks.make(node.log_links, pod, container.name, run.id, target)
            failpoint("log.linked")

    def _dropped(self, uid: str) -> None:
        """Forget what was kept for a pod that is torn down."""
        self._volumes.pop(uid, None)
        self._ips.pop(uid, None)
        for held in (self._images, self._volume_images):
            for key in [key for key in held if key[0] == uid]:
                del held[key]

    def _remove_logs(self, uid: str) -> None:
        # By the end of their names: of a pod without a record we do not know the rest.
        links = self._common.node.log_links
        for directory in self._common.node.log_root.iterdir():
            if directory.name.endswith(f"_{uid}"):
                if links is not None:
                    loglinks.remove(links, directory)
                shutil.rmtree(directory, ignore_errors=True)

    def _remove_cgroups(self, uid: str) -> None:
        # In every QoS class: of a pod without a record we do not know which it had.
        for qos in cgroup_math.QosClass:
            path = cgroup_math.pod_path(self._common.node.cgroup_root, qos, uid)
            self._common.runtime.cgroups.remove(path)

    async def _run_hook(self, pod: Pod, hook: LifecycleHandler, container: Container, run: Instance) -> Answer:
        def tell(type: str, reason: str, message: str) -> None:
            self._common.events.event(refs.reference(pod, container.name), type, reason, message)

        host = self._host(pod)
        return await hooks.run(self._common.runtime, hook, container, run.id, host, refs.display(pod), tell)

    def _host(self, pod: Pod) -> str:
        """Return where the pod's servers are reached."""
        ips = self._ips.get(pod.metadata.uid) or tuple(entry.ip for entry in pod.status.pod_ips)
        return next(iter(ips or self._common.host_ips), "127.0.0.1")

    async def _surroundings(
        self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...], hostname: str
    ) -> Surroundings:
        """Compute the variables and prepare the file of the message. Raises what ``_refused`` knows."""
        parts, uid = self._common, pod.metadata.uid
        context = env.EnvContext(ips or parts.host_ips, parts.host_ips, hostname, parts.allocatable())
        if any(mount.name not in self._volumes.get(uid, {}) for mount in container.volume_mounts):
            await self.set_up_volumes(pod)  # an ephemeral container may be the first to use a volume
        sources = await parts.volumes.env_sources(pod, container)
        variables = env.container_env(pod, container, sources, parts.services(), context)
        message = endmessage.message_file(parts.records.directory(uid), container.name, run.attempt)
        endmessage.prepare(message)
        return Surroundings(variables, dict(variables), message)

    def _inputs(self, pod: Pod, container: Container, run: Instance, around: Surroundings, space: Space) -> spec.Inputs:
        """Put together what a run is made of, and note what its status will tell of it. Raises MountError."""
        parts, uid = self._common, pod.metadata.uid
        directory = parts.records.directory(uid)
        mounted = _without(container, space.not_ours)
        found = parts.volumes.mounts_for(pod, mounted, self._volumes.get(uid, {}), around.values)
        run.recursive = [mount.destination for mount in found if "rro" in mount.options]
        images = self._volume_images.get((uid, container.name), {})
        run.volume_images = {name: imagevolumes.reference(image) for name, image in images.items()}
        sandbox = spec.Sandbox(
            space.paths,
            space.hostname,
            podfiles.hosts_path(directory),
            podfiles.resolv_path(directory),
            ids=space.ids,
        )
        return spec.Inputs(
            pod=pod,
            container=container,
            run=run,
            image=self._images[uid, container.name],
            env=around.variables,
            sandbox=sandbox,
            pid_ns=space.processes,
            volume_mounts=found,
            devices=parts.volumes.devices_for(pod, container),
            message_file=around.message,
            program=space.program,
            expand=lambda text: env.expand(text, around.values.get),
        )


def _without(container: Container, names: Collection[str]) -> Container:
    """The container without its mounts of these volumes."""
    if not names:
        return container
    kept = [mount for mount in container.volume_mounts if mount.name not in names]
    return msgspec.structs.replace(container, volume_mounts=kept)


REFUSALS = (MountError, FailedMount, env.CreateContainerConfigError, ApiError, RuntimeClassError, ValueError, OSError)
"""What keeps a container's order from being made; ``refused`` has the words for it."""


def refused(error: Exception) -> StartError:
    """Return what a pod's owner is told of an order that could not be made."""
    reason = error.reason if isinstance(error, MountError) else "CreateContainerConfigError"
    return StartError(reason, str(error))
