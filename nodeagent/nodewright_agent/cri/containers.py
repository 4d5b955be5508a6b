"""Containers in their sandboxes. ``CreateContainer`` writes down what is to run; the runtime makes it at the start.

That is as containerd has it: a created container is a record (and there a snapshot), which outlives the server; what
the OCI runtime refuses is said by ``StartContainer``, and the container is then "exited" with 128 and StartError.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.cri import mapping, status, wire
from nodewright_agent.cri.clock import new_id, now
from nodewright_agent.cri.errors import Exists, Expired, Invalid, NotFound, Unfit
from nodewright_agent.cri.lookup import find
from nodewright_agent.cri.parts import Parts
from nodewright_agent.cri.podsandboxes import PodSandboxes
from nodewright_agent.cri.records import Container, Sandbox
from nodewright_agent.runtime import pause
from nodewright_agent.runtime.errors import ContainerRuntimeError, ContainerStateError, ExecError, RunContainerError
from nodewright_agent.runtime.spec import ExecResult, ExitInfo

log = logging.getLogger(__name__)

MAX_OUTPUT = 16 << 20
"""Bytes of each stream that ExecSync keeps (CVE-2022-1708): the protocol's figure."""


class Containers:
    """Does the work; ``sandboxes`` says where a container goes."""

    def __init__(self, parts: Parts, sandboxes: PodSandboxes) -> None:
        """Work with these parts."""
        self._parts, self._sandboxes = parts, sandboxes

    async def recover(self) -> None:
        """After a start: what is without its sandbox goes, and what the runtime has without a record of ours."""
        records, runtime = self._parts.records, self._parts.runtime
        for container in list(records.containers.values()):
            if container.sandbox not in records.sandboxes:
                await self.remove(container)
        for run in await runtime.list():
            sandbox = pause.pod_of(run.id)
            if run.id not in records.containers and sandbox not in records.sandboxes:
                await runtime.delete(run.id, force=True)

    async def create(self, sandbox: Sandbox, config: Any) -> Container:
        """Write down a container. Raises CriError, ContainerRuntimeError."""
        self._check(sandbox, config)
        image = find(self._parts.images, config.image.image)
        if image is None:
            raise NotFound(f'image "{config.image.image}" is not in the store: pull it first')
        place = await self._sandboxes.place(sandbox, config.linux.security_context.namespace_options)
        cid = new_id()
        try:
            self._parts.volumes.prepare(sandbox.id, place.paths, config)
            mapping.make_sources(config)
            order = mapping.container_spec(cid, config, image, place)
        except OSError as error:
            raise Invalid(f"failed to create the container: {error}") from error
        container = Container(
            id=cid,
            sandbox=sandbox.id,
            request=config.SerializeToString(),
            order=order,
            image=image.id,
            created_at=now(),
        )
        self._parts.records.keep(container)
        self._tell(container, wire.CONTAINER_CREATED_EVENT)
        return container

    async def start(self, container: Container) -> None:
        """Start a created container. Raises Unfit, ContainerRuntimeError."""
        state = status.state(container, self._parts.runtime.find(container.id))
        if state != wire.CONTAINER_CREATED:
            name = status.STATES[state]
            raise Unfit(f'container "{container.id}" is in {name} state, not in CONTAINER_CREATED')
        sandbox = self._parts.records.sandboxes[container.sandbox]
        if not self._sandboxes.ready(sandbox):
            raise Unfit(f'sandbox "{sandbox.id}" is not ready')
        runtime = self._parts.runtime
        try:
            if container.order.log_path:
                Path(container.order.log_path).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            await runtime.create(container.order)
            container.begun = True
            self._parts.records.keep(container)
            await runtime.start(container.id)
        except (ContainerRuntimeError, OSError) as error:
            container.failed_at, container.failure = now(), str(error)
            self._parts.records.keep(container)
            self._tell(container, wire.CONTAINER_STOPPED_EVENT)
            if isinstance(error, ContainerRuntimeError):
                raise
            raise RunContainerError(f"failed to start the container: {error}") from error
        self._tell(container, wire.CONTAINER_STARTED_EVENT)

    async def stop(self, container: Container, timeout: float) -> None:
        """Ask it to end, and kill it after ``timeout`` seconds; idempotent."""
        runtime = self._parts.runtime
        record = runtime.find(container.id)
        if record is None or not record.running:
            return
        if timeout > 0:
            await runtime.kill(container.id, container.order.stop_signal)
            try:
                async with asyncio.timeout(timeout):
                    await runtime.wait(container.id)
                return
            except TimeoutError:
                log.info("a container ignores its stop signal: killing it", extra={"container": container.id})
        await asyncio.to_thread(runtime.cgroups.kill, record.cgroup)
        await runtime.wait(container.id)

    async def remove(self, container: Container) -> None:
        """Remove a container, killing it if it runs."""
        await self._parts.runtime.delete(container.id, force=True)
        self._parts.records.drop(container)
        self._tell(container, wire.CONTAINER_DELETED_EVENT)

    async def update(self, container: Container, given: Any) -> None:
        """Change limits; of a created container those that it will have. Raises Unfit, Lacking, OSError."""
        record, cgroups = self._parts.runtime.find(container.id), self._parts.runtime.cgroups
        limits = mapping.resources(given, cgroups.hugepage_sizes(container.order.cgroup_parent))
        if status.state(container, record) not in (wire.CONTAINER_CREATED, wire.CONTAINER_RUNNING):
            raise Unfit(f'container "{container.id}" has ended: its limits cannot be changed')
        before = container.order.resources
        said = {name: value for name, value in msgspec.structs.asdict(limits).items() if value}
        merged = msgspec.structs.replace(before, **said)
        if record is not None:
            try:
                await self._parts.runtime.update(container.id, limits)
            except OSError as error:
                raise ContainerRuntimeError(f"failed to update resources: {error}") from error
        container.order = msgspec.structs.replace(container.order, resources=merged)
        self._parts.records.keep(container)

    async def reopen_log(self, container: Container) -> None:
        """Let the log begin anew after somebody has renamed it. Raises Unfit."""
        record = self._parts.runtime.find(container.id)
        if record is None or not record.running:
            raise Unfit(f'container "{container.id}" is not running')
        if container.order.log_path:
            await self._parts.runtime.reopen_log(container.id)

    async def exec_sync(self, container: Container, argv: list[str], timeout: float) -> ExecResult:
        """Run a command to its end. Raises Expired, Unfit, Invalid, ExecError."""
        if not argv:
            raise Invalid("cmd must not be empty")
        self.running(container)
        try:
            result = await self._parts.runtime.exec(container.id, argv, timeout=timeout or None, max_output=MAX_OUTPUT)
        except ContainerStateError as error:
            raise Unfit(str(error)) from error
        except ExecError as error:
            raise ExecError(f"failed to exec in container: {error}") from error
        if result.timed_out:
            raise Expired(f"failed to exec in container: timeout {timeout:g}s exceeded: context deadline exceeded")
        return result

    def running(self, container: Container) -> None:
        """Raise Unfit unless it runs."""
        state = status.state(container, self._parts.runtime.find(container.id))
        if state != wire.CONTAINER_RUNNING:
            raise Unfit(f'container "{container.id}" is in {status.STATES[state]} state, not running')

    def ended(self, cid: str, info: ExitInfo) -> None:
        """Take note of an end that the runtime tells of."""
        container = self._parts.records.containers.get(cid)
        if container is not None:
            self._tell(container, wire.CONTAINER_STOPPED_EVENT)

    def statuses(self, sandbox: Sandbox) -> list[Any]:
        """The ContainerStatus of each of its containers."""
        found = self._parts.records.of_sandbox(sandbox.id)
        return [self.status(container) for container in found]

    def status(self, container: Container) -> Any:
        """The ContainerStatus."""
        image = self._parts.images.resolve(container.image)
        return status.container(container, self._parts.runtime.find(container.id), image)

    def _check(self, sandbox: Sandbox, config: Any) -> None:
        meta = config.metadata
        if not config.HasField("metadata") or not meta.name:
            raise Invalid("container config must include metadata with a name")
        for other in self._parts.records.of_sandbox(sandbox.id):
            if other.config.metadata == meta:
                name = f"{meta.name}_{meta.attempt}"
                raise Exists(f'failed to reserve container name "{name}": it is reserved for "{other.id}"')

    def _tell(self, container: Container, kind: int) -> None:
        sandbox = self._parts.records.sandboxes.get(container.sandbox)
        self._parts.events.post(
            wire.ContainerEventResponse(
                container_id=container.id,
                container_event_type=kind,
                created_at=now(),
                pod_sandbox_status=status.sandbox(sandbox) if sandbox is not None else None,
                containers_statuses=self.statuses(sandbox) if sandbox is not None else [],
            )
        )
