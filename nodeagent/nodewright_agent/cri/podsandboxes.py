"""Sandboxes: namespaces, network, cgroup and files, made, stopped and removed; each step can be repeated."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

import msgspec

from nodewright_agent.cri import sandboxfiles, security, wire
from nodewright_agent.cri.clock import new_id, now
from nodewright_agent.cri.errors import Exists, Invalid, Unfit
from nodewright_agent.cri.mapping import Place
from nodewright_agent.cri.parts import Parts
from nodewright_agent.cri.records import Container, Sandbox
from nodewright_agent.runtime import pause
from nodewright_agent.runtime.errors import SandboxError
from nodewright_agent.runtime.sandbox import SandboxPaths

log = logging.getLogger(__name__)

_SHARED = "shared"


class PodSandboxes:
    """Does the work; what is asked of it comes as CRI messages or records."""

    def __init__(self, parts: Parts) -> None:
        """Work with these parts."""
        self._parts = parts

    async def recover(self) -> None:
        """After a start: remove what was half made; what has lost its namespaces (a reboot) is not ready any more."""
        known = self._parts.records.sandboxes
        for sandbox in list(known.values()):
            if not sandbox.made:
                await self._dismantle(sandbox.id)
                await self.remove(sandbox)
            elif sandbox.ready and not self._whole(sandbox):
                await self.stop(sandbox)
        for sid in {*self._parts.sandboxes.list(), *self._parts.network.attached()} - known.keys():
            await self._dismantle(sid)

    async def run(self, config: Any, handler: str) -> Sandbox:
        """Make a sandbox. Raises CriError, ContainerRuntimeError, NetworkError; nothing is left then."""
        parts = self._parts
        parts.settings.program(handler)
        sandbox = self._new(config, handler)
        async with parts.locks[sandbox.id]:
            try:
                parts.records.keep(sandbox)
                await self._make(sandbox)
            except BaseException as error:
                await asyncio.shield(self._undo(sandbox))
                if isinstance(error, OSError):
                    raise SandboxError(f"failed to make the sandbox: {error}") from error
                raise
        return sandbox

    async def stop(self, sandbox: Sandbox) -> None:
        """End its containers and give its network and namespaces back; idempotent. To be called with its lock."""
        runtime = self._parts.runtime
        for record in runtime.of_pod(sandbox.id):
            if record.running:
                await asyncio.to_thread(runtime.cgroups.kill, record.cgroup)
                await runtime.wait(record.id)
        await self._dismantle(sandbox.id)
        if sandbox.ready:
            sandbox.ready = False
            self._parts.records.keep(sandbox)

    async def remove(self, sandbox: Sandbox) -> None:
        """Remove a stopped sandbox, whose containers are gone."""
        if sandbox.own_cgroup:
            await asyncio.to_thread(self._parts.runtime.cgroups.remove, sandbox.cgroup)
        self._parts.records.drop(sandbox)
        self._parts.locks.pop(sandbox.id, None)

    def ready(self, sandbox: Sandbox) -> bool:
        """Whether containers can be started in it."""
        return sandbox.ready and self._whole(sandbox)

    async def place(self, sandbox: Sandbox, options: Any) -> Place:
        """Where a container with this NamespaceOption goes. Raises Unfit, Invalid, ContainerRuntimeError."""
        parts = self._parts
        paths = parts.sandboxes.get(sandbox.id)
        if not sandbox.ready or paths is None:
            raise Unfit(f'sandbox "{sandbox.id}" is not ready: it was stopped, or the host was started anew')
        return Place(
            sandbox=sandbox,
            paths=paths,
            files=parts.records.directory(sandbox.id),
            pid_ns=await self._processes(sandbox, paths, options),
            program=parts.settings.program(sandbox.handler),
            app_armor=parts.runtime.info.app_armor_default,
            page_sizes=parts.runtime.cgroups.hugepage_sizes(sandbox.cgroup),
        )

    async def _processes(self, sandbox: Sandbox, paths: SandboxPaths, options: Any) -> str | None:
        """Whose processes a container sees: a path, ``host``, or None for its own."""
        if options.pid == wire.NODE:
            return "host"
        if options.pid == wire.CONTAINER:
            return None
        if options.pid == wire.POD:
            return await self._shared(sandbox, paths)
        runtime, target = self._parts.runtime, self._parts.records.container(options.target_id)
        record = runtime.find(target.id)
        if target.sandbox != sandbox.id:
            raise Invalid(f"target container {options.target_id} is of another sandbox")
        if record is None or not runtime.alive(target.id):
            raise Unfit(f"target container {options.target_id} is not running")
        return self._parts.sandboxes.pin_processes(
            sandbox.id, f"of-{target.id}", record.state.pid, lambda: runtime.alive(target.id)
        )

    async def _shared(self, sandbox: Sandbox, paths: SandboxPaths) -> str:
        """The process namespace of the sandbox, held by a pause container from the first time on that it is wanted."""
        runtime, cid = self._parts.runtime, pause.container_id(sandbox.id)
        path = self._parts.sandboxes.processes(sandbox.id, _SHARED)
        if path is not None:
            return path
        meta = sandbox.config.metadata
        layer = await asyncio.to_thread(pause.layer, runtime.layout.run)
        log = self._parts.records.directory(sandbox.id) / "pause.log"
        paused = pause.PausedPod(sandbox.id, meta.name, meta.namespace, paths, sandbox.cgroup, log, sandbox.ids)
        try:
            order = pause.spec(paused, layer)
        except ValueError as error:
            raise SandboxError(f"shared processes: {error}") from error
        await runtime.delete(cid, force=True)
        await runtime.create(msgspec.structs.replace(order, runtime=self._parts.settings.program(sandbox.handler)))
        await runtime.start(cid)
        if (record := runtime.find(cid)) is None:
            raise SandboxError("the pause process has ended at once")
        return self._parts.sandboxes.pin_processes(sandbox.id, _SHARED, record.state.pid, lambda: runtime.alive(cid))

    def _new(self, config: Any, handler: str) -> Sandbox:
        meta = config.metadata
        if not config.HasField("metadata") or not (meta.name and meta.namespace and meta.uid):
            raise Invalid("sandbox config must include metadata with name, namespace and uid")
        for other in self._parts.records.sandboxes.values():
            if other.config.metadata == meta:
                name = f"{meta.name}_{meta.namespace}_{meta.uid}_{meta.attempt}"
                raise Exists(f'failed to reserve sandbox name "{name}": it is reserved for "{other.id}"')
        sid, options = new_id(), config.linux.security_context.namespace_options
        context = config.linux.security_context
        if context.HasField("run_as_group") and not context.HasField("run_as_user"):
            raise Invalid("run_as_group is specified without run_as_user")
        given = config.linux.cgroup_parent.strip("/")
        if ".." in given.split("/"):
            raise Invalid(f"cgroup_parent {config.linux.cgroup_parent!r} has a part ..")
        ids = security.ids(options)
        if ids is not None and self._parts.userns_problem:
            raise Unfit(f"user namespaces cannot be used here: {self._parts.userns_problem}")
        cgroup = f"/{given}" if given else f"{self._parts.runtime.cgroup_root}/{sid}"
        return Sandbox(
            id=sid,
            request=config.SerializeToString(),
            handler=handler,
            created_at=now(),
            hostname=config.hostname or socket.gethostname(),
            cgroup=cgroup,
            own_cgroup=not self._parts.runtime.cgroups.exists(cgroup),
            ids=ids,
        )

    async def _make(self, sandbox: Sandbox) -> None:
        parts, config, options = self._parts, sandbox.config, sandbox.namespaces
        parts.runtime.prewarm()
        parts.runtime.cgroups.create(sandbox.cgroup)
        paths = await parts.sandboxes.create(
            sandbox.id,
            sandbox.hostname,
            dict(config.linux.sysctls),
            network=options.network != wire.NODE,
            ipc=options.ipc != wire.NODE,
            ids=sandbox.ids,
        )
        if paths.net is not None:
            sandbox.ip = await parts.network.attach(sandbox.id, paths.net, config.port_mappings)
        sandboxfiles.write(parts.records.directory(sandbox.id), config, sandbox.hostname)
        if config.log_directory:
            os.makedirs(config.log_directory, mode=0o755, exist_ok=True)
        sandbox.made = sandbox.ready = True
        parts.records.keep(sandbox)

    async def _undo(self, sandbox: Sandbox) -> None:
        sandbox.made = sandbox.ready = False
        try:
            await self._dismantle(sandbox.id)
            await self.remove(sandbox)
        except Exception as error:
            # The record stays, marked as half made: its removal, which is up to the caller, or the next start.
            log.error("a sandbox could not be undone", extra={"sandbox": sandbox.id, "error": str(error)})

    async def _dismantle(self, sid: str) -> None:
        await self._parts.network.detach(sid)
        await self._parts.runtime.delete(pause.container_id(sid), force=True)
        await self._parts.sandboxes.remove(sid)
        await asyncio.to_thread(self._parts.volumes.remove, sid)

    def _whole(self, sandbox: Sandbox) -> bool:
        if self._parts.sandboxes.get(sandbox.id) is None:
            return False
        shared = self._parts.sandboxes.processes(sandbox.id, _SHARED)
        return shared is None or self._parts.runtime.alive(pause.container_id(sandbox.id))


def named(record: Sandbox | Container, selector: Any) -> bool:
    """Whether a sandbox or container has all these labels."""
    labels = record.config.labels
    return all(labels.get(key) == value for key, value in selector.items())
