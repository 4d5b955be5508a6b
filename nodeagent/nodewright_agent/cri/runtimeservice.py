"""The RuntimeService: finds what a request names, has it done, and puts the answer together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from nodewright_agent import __version__
from nodewright_agent.cri import stats, status, wire
from nodewright_agent.cri.clock import now
from nodewright_agent.cri.containers import Containers
from nodewright_agent.cri.errors import NotFound
from nodewright_agent.cri.parts import Parts
from nodewright_agent.cri.podsandboxes import PodSandboxes, named
from nodewright_agent.cri.records import Container, Sandbox
from nodewright_agent.cri.streaming import Streaming


class RuntimeService:
    """The calls, by their names in CRI."""

    def __init__(self, parts: Parts, sandboxes: PodSandboxes, containers: Containers, streams: Streaming) -> None:
        """Work with these parts."""
        self._parts, self._sandboxes, self._containers, self._streams = parts, sandboxes, containers, streams

    # The runtime itself

    async def Version(self, request: Any) -> Any:
        """Who we are."""
        return wire.VersionResponse(
            version="0.1.0", runtime_name="nodewright", runtime_version=__version__, runtime_api_version="v1"
        )

    async def Status(self, request: Any) -> Any:
        """Whether sandboxes and their network can be made."""
        info = self._parts.runtime.info
        features = wire.RuntimeHandlerFeatures(
            recursive_read_only_mounts=info.recursive_read_only, user_namespaces=not self._parts.userns_problem
        )
        handlers = ["", *sorted(self._parts.settings.handlers)]
        config = msgspec.json.encode(self._parts.settings, enc_hook=str).decode()
        return wire.StatusResponse(
            status=wire.RuntimeStatus(conditions=self._parts.network.conditions()),
            info={"config": config} if request.verbose else {},
            runtime_handlers=[wire.RuntimeHandler(name=name, features=features) for name in handlers],
            features=wire.RuntimeFeatures(supplemental_groups_policy=True),
        )

    async def RuntimeConfig(self, request: Any) -> Any:
        """How cgroup_parent is read."""
        return wire.RuntimeConfigResponse(linux=wire.LinuxRuntimeConfiguration(cgroup_driver=wire.CGROUPFS))

    async def UpdateRuntimeConfig(self, request: Any) -> Any:
        """Take the pod CIDR, where none is in use."""
        if cidr := request.runtime_config.network_config.pod_cidr:
            await self._parts.network.use(cidr)
        return wire.UpdateRuntimeConfigResponse()

    # Sandboxes

    async def RunPodSandbox(self, request: Any) -> Any:
        """Make one."""
        sandbox = await self._sandboxes.run(request.config, request.runtime_handler)
        return wire.RunPodSandboxResponse(pod_sandbox_id=sandbox.id)

    async def StopPodSandbox(self, request: Any) -> Any:
        """End all that runs in it; nothing to do for one that is gone."""
        if (sandbox := self._sandbox_if_any(request.pod_sandbox_id)) is not None:
            async with self._parts.locks[sandbox.id]:
                await self._sandboxes.stop(sandbox)
        return wire.StopPodSandboxResponse()

    async def RemovePodSandbox(self, request: Any) -> Any:
        """Remove it and its containers; nothing to do for one that is gone."""
        if (sandbox := self._sandbox_if_any(request.pod_sandbox_id)) is not None:
            async with self._parts.locks[sandbox.id]:
                await self._sandboxes.stop(sandbox)
                for container in self._parts.records.of_sandbox(sandbox.id):
                    await self._containers.remove(container)
                await self._sandboxes.remove(sandbox)
        return wire.RemovePodSandboxResponse()

    async def PodSandboxStatus(self, request: Any) -> Any:
        """What there is to say of one."""
        sandbox = self._parts.records.sandbox(request.pod_sandbox_id)
        paths = self._parts.sandboxes.get(sandbox.id)
        about = {"handler": sandbox.handler, "cgroup": sandbox.cgroup, "namespaces": paths}
        return wire.PodSandboxStatusResponse(
            status=status.sandbox(sandbox, self._state(sandbox)),
            info={"info": msgspec.json.encode(about).decode()} if request.verbose else {},
            containers_statuses=self._containers.statuses(sandbox),
            timestamp=now(),
        )

    async def ListPodSandbox(self, request: Any) -> Any:
        """Those that the filter lets through."""
        return wire.ListPodSandboxResponse(items=self._listed_sandboxes(request.filter))

    async def StreamPodSandboxes(self, request: Any) -> Any:
        """The same."""
        return wire.StreamPodSandboxesResponse(pod_sandboxes=self._listed_sandboxes(request.filter))

    async def UpdatePodSandboxResources(self, request: Any) -> Any:
        """The caller has changed the pod's cgroup; there is nothing else to change."""
        self._parts.records.sandbox(request.pod_sandbox_id)
        return wire.UpdatePodSandboxResourcesResponse()

    # Containers

    async def CreateContainer(self, request: Any) -> Any:
        """Write one down."""
        sandbox = self._parts.records.sandbox(request.pod_sandbox_id)
        async with self._parts.locks[sandbox.id]:
            container = await self._containers.create(sandbox, request.config)
        return wire.CreateContainerResponse(container_id=container.id)

    async def StartContainer(self, request: Any) -> Any:
        """Start a created one."""
        container = self._parts.records.container(request.container_id)
        async with self._parts.locks[container.sandbox]:
            await self._containers.start(container)
        return wire.StartContainerResponse()

    async def StopContainer(self, request: Any) -> Any:
        """End it; nothing to do for one that is gone. Others of the sandbox need not wait for its grace period."""
        if (container := self._container_if_any(request.container_id)) is not None:
            await self._containers.stop(container, max(0, request.timeout))
        return wire.StopContainerResponse()

    async def RemoveContainer(self, request: Any) -> Any:
        """Remove it; nothing to do for one that is gone."""
        if (container := self._container_if_any(request.container_id)) is not None:
            async with self._parts.locks[container.sandbox]:
                await self._containers.remove(container)
        return wire.RemoveContainerResponse()

    async def ListContainers(self, request: Any) -> Any:
        """Those that the filter lets through."""
        return wire.ListContainersResponse(containers=self._listed_containers(request.filter))

    async def StreamContainers(self, request: Any) -> Any:
        """The same."""
        return wire.StreamContainersResponse(containers=self._listed_containers(request.filter))

    async def ContainerStatus(self, request: Any) -> Any:
        """What there is to say of one."""
        container = self._parts.records.container(request.container_id)
        record = self._parts.runtime.find(container.id)
        about = {
            "sandboxID": container.sandbox,
            "pid": record.state.pid if record is not None and record.running else 0,
            "runtimeSpec": container.order,
        }
        info = {"info": msgspec.json.encode(about).decode()} if request.verbose else {}
        return wire.ContainerStatusResponse(status=self._containers.status(container), info=info)

    async def UpdateContainerResources(self, request: Any) -> Any:
        """Change limits."""
        container = self._parts.records.container(request.container_id)
        async with self._parts.locks[container.sandbox]:
            await self._containers.update(container, request.linux)
        return wire.UpdateContainerResourcesResponse()

    async def ReopenContainerLog(self, request: Any) -> Any:
        """Begin a new log file."""
        await self._containers.reopen_log(self._parts.records.container(request.container_id))
        return wire.ReopenContainerLogResponse()

    async def ExecSync(self, request: Any) -> Any:
        """Run a command to its end."""
        container = self._parts.records.container(request.container_id)
        result = await self._containers.exec_sync(container, list(request.cmd), max(0, request.timeout))
        return wire.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.code)

    async def Exec(self, request: Any) -> Any:
        """Where to connect for a command."""
        return wire.ExecResponse(url=await self._streams.exec(request))

    async def Attach(self, request: Any) -> Any:
        """Where to connect to the first process."""
        return wire.AttachResponse(url=await self._streams.attach(request))

    async def PortForward(self, request: Any) -> Any:
        """Where to connect to a sandbox's ports."""
        return wire.PortForwardResponse(url=await self._streams.port_forward(request))

    def GetContainerEvents(self, request: Any) -> AsyncIterator[Any]:
        """Starts and ends from now on."""
        return self._parts.events.follow()

    # Usage

    async def ContainerStats(self, request: Any) -> Any:
        """Usage of one container. Raises NotFound for one that does not run."""
        container = self._parts.records.container(request.container_id)
        found = await stats.container(self._parts, container)
        if found is None:
            raise NotFound(f'container "{container.id}" is not running: it uses nothing')
        return wire.ContainerStatsResponse(stats=found)

    async def ListContainerStats(self, request: Any) -> Any:
        """Usage of those that run and that the filter lets through."""
        return wire.ListContainerStatsResponse(stats=await self._container_stats(request.filter))

    async def StreamContainerStats(self, request: Any) -> Any:
        """The same."""
        return wire.StreamContainerStatsResponse(container_stats=await self._container_stats(request.filter))

    async def PodSandboxStats(self, request: Any) -> Any:
        """Usage of one sandbox."""
        sandbox = self._parts.records.sandbox(request.pod_sandbox_id)
        if not self._sandboxes.ready(sandbox):
            raise NotFound(f'pod sandbox "{sandbox.id}" is not ready: it uses nothing')
        return wire.PodSandboxStatsResponse(stats=await stats.sandbox(self._parts, sandbox))

    async def ListPodSandboxStats(self, request: Any) -> Any:
        """Usage of those that are ready and that the filter lets through."""
        return wire.ListPodSandboxStatsResponse(stats=await self._sandbox_stats(request.filter))

    async def StreamPodSandboxStats(self, request: Any) -> Any:
        """The same."""
        return wire.StreamPodSandboxStatsResponse(pod_sandbox_stats=await self._sandbox_stats(request.filter))

    # What lists are made of

    def _state(self, sandbox: Sandbox) -> int:
        return int(wire.SANDBOX_READY if self._sandboxes.ready(sandbox) else wire.SANDBOX_NOTREADY)

    def _chosen_sandboxes(self, wanted: str, selector: Any) -> list[Sandbox]:
        """All but those that are being made: one that could not be undone is shown, so that it is removed."""
        found = [one for one in self._parts.records.sandboxes.values() if one.made or not self._busy(one)]
        return [one for one in found if one.id.startswith(wanted) and named(one, selector)]

    def _busy(self, sandbox: Sandbox) -> bool:
        lock = self._parts.locks.get(sandbox.id)
        return lock is not None and lock.locked()

    def _listed_sandboxes(self, wanted: Any) -> list[Any]:
        found = [(one, self._state(one)) for one in self._chosen_sandboxes(wanted.id, wanted.label_selector)]
        by_state = wanted.HasField("state")
        return [
            status.listed_sandbox(one, state) for one, state in found if not by_state or state == wanted.state.state
        ]

    def _chosen_containers(self, wanted: Any) -> list[Container]:
        return [
            one
            for one in self._parts.records.containers.values()
            if one.id.startswith(wanted.id)
            and one.sandbox.startswith(wanted.pod_sandbox_id)
            and named(one, wanted.label_selector)
        ]

    def _listed_containers(self, wanted: Any) -> list[Any]:
        images = {image.id: image for image in self._parts.images.list()}
        found = [
            status.listed(one, self._parts.runtime.find(one.id), images.get(one.image))
            for one in self._chosen_containers(wanted)
        ]
        return [one for one in found if not wanted.HasField("state") or one.state == wanted.state.state]

    async def _container_stats(self, wanted: Any) -> list[Any]:
        works = [stats.container(self._parts, one) for one in self._chosen_containers(wanted)]
        return [found for found in await asyncio.gather(*works) if found is not None]

    async def _sandbox_stats(self, wanted: Any) -> list[Any]:
        chosen = self._chosen_sandboxes(wanted.id, wanted.label_selector)
        works = [stats.sandbox(self._parts, one) for one in chosen if self._sandboxes.ready(one)]
        return list(await asyncio.gather(*works))

    def _sandbox_if_any(self, text: str) -> Sandbox | None:
        try:
            return self._parts.records.sandbox(text)
        except NotFound:
            return None

    def _container_if_any(self, text: str) -> Container | None:
        try:
            return self._parts.records.container(text)
        except NotFound:
            return None
