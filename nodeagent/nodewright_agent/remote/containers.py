"""What the agent does with the node's containers in another runtime."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.remote import config, labels
from nodewright_agent.remote.client import LONG, TIMEOUT, CallFailed, Client, Missing
from nodewright_agent.remote.picture import Picture
from nodewright_agent.remote.records import RemoteRecord, Sandbox
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroups import Cgroups, CgroupStats
from nodewright_agent.runtime.errors import ContainerNotFound, ContainerStateError, ExecError, RunContainerError
from nodewright_agent.runtime.spec import ContainerRecord, ExecResult, ExitInfo, Phase, Resources
from nodewright_agent.usage.disk import Count

log = logging.getLogger(__name__)

_UNTIL_KILLED = 1 << 30
"""Seconds that StopContainer gives at a stop signal: when a container is killed is the agent's affair."""
_OPENING = 30.0
"""Seconds in which the runtime has to end a start that an earlier agent had asked for."""


class RemoteContainers(Picture):
    """Implements ``pods.containers.Containers``. ``open`` first; what the runtime has stays when the agent ends."""

    cared_for: Callable[[str], bool]
    """Whether anybody looks after a pod, by UID."""

    def __init__(
        self, client: Client, cgroups: Cgroups, host: config.Host, node_name: str, cgroup_root: str, layers: Path
    ) -> None:
        """As ``Picture``."""
        super().__init__(client, cgroups, host, node_name, cgroup_root, layers)
        self.cared_for = lambda uid: True
        self._first: frozenset[str] | None = None
        """The sandboxes that an earlier agent left, for which whoever takes them up has yet to come."""
        self._alone: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take the picture for the first time; what an earlier agent had created and not started goes.

        Raises CallFailed, also where that does not go: it may be about to run.
        """
        deadline = time.monotonic() + _OPENING
        while True:
            await self.look()
            try:
                for record in [one for one in self._records.values() if one.state.phase is Phase.CREATED]:
                    await self.delete(record.id)
            except CallFailed as error:
                if time.monotonic() >= deadline:
                    raise
                log.warning("a container that was never started cannot be removed: %s", error)
                await asyncio.sleep(1.0)
            else:
                self._first = frozenset(one.id for found in self.sandboxes.values() for one in found)
                return

    async def create(self, sandbox: str, order: Any, sandbox_config: Any) -> RemoteRecord:
        """Have a container made, and give its record. Raises CallFailed.

        A name is for one container: what an earlier call made, of which the answer never came, goes first.
        """
        await self._remove_named(order)
        try:
            answer = await self._client.runtime(
                "CreateContainer", deadline=LONG, pod_sandbox_id=sandbox, config=order, sandbox_config=sandbox_config
            )
            cid = answer.container_id
            failpoint("create.done")
            await self.refresh(cid, sandbox)
        except CallFailed:
            await self._unmake(order)
            raise
        record = self._records.get(cid)
        if record is None:
            raise ContainerNotFound(f"container {cid} was removed as soon as it was created")
        return record

    async def start(self, cid: str) -> float:
        """Let a created container run; its start time.

        Raises RunContainerError with the runtime's words where the container has ended of it; CallFailed: the runtime
        could not try, or nobody knows.
        """
        record = self._record(cid)
        try:
            await self._client.runtime("StartContainer", deadline=LONG, container_id=cid)
        except CallFailed as error:
            if error.down or error.late:
                raise
            with contextlib.suppress(CallFailed):
                await self.refresh(cid)
            if record.state.phase is Phase.EXITED:
                raise RunContainerError(str(error)) from error
            raise
        failpoint("start.done")
        with contextlib.suppress(CallFailed):  # it runs, whatever became of the runtime since; the next look tells
            await self.refresh(cid)
        return record.state.started_at or time.time()

    async def stop(self, cid: str) -> None:
        """Send the stop signal and wait for the end, however long that takes. Cancelled: the signal stays sent."""
        await self._stop(cid, _UNTIL_KILLED, None)

    async def kill(self, cid: str) -> None:
        """Send SIGKILL, and wait for the end."""
        await self._stop(cid, 0, TIMEOUT)

    async def delete(self, cid: str, force: bool = False) -> None:
        """Remove an ended container; with ``force`` kill it first. Idempotent."""
        record = self._records.get(cid)
        if record is None:
            return
        if record.running and not force:
            raise ContainerStateError(f"container {cid} is running: stop it first")
        if record.running:
            await self.kill(cid)
        try:
            await self._client.runtime("RemoveContainer", container_id=cid)
        except Missing:
            pass
        self._forget(cid)

    async def wait(self, cid: str) -> ExitInfo:
        """Wait until a container has ended."""
        record = self._record(cid)
        while record.state.exit is None:
            await self._ended.setdefault(cid, asyncio.Event()).wait()
            self._record(cid)
        return record.state.exit

    async def exec(
        self, cid: str, argv: Sequence[str], *, timeout: float | None = None, max_output: int = 1 << 20
    ) -> ExecResult:
        """Run a command. Runtimes count whole seconds. Raises ExecError, ContainerNotFound."""
        seconds = math.ceil(timeout) if timeout else 0
        deadline = seconds + TIMEOUT if seconds else None
        try:
            answer = await self._client.runtime(
                "ExecSync", deadline=deadline, container_id=cid, cmd=list(argv), timeout=seconds
            )
        except Missing:
            raise
        except CallFailed as error:
            if error.late:
                return ExecResult(code=0, stdout=b"", stderr=b"", timed_out=True)
            raise ExecError(str(error)) from error
        out, err = answer.stdout, answer.stderr
        cut = len(out) > max_output or len(err) > max_output
        return ExecResult(code=answer.exit_code, stdout=out[:max_output], stderr=err[:max_output], truncated=cut)

    async def update(self, cid: str, resources: Resources) -> None:
        """Change the limits of a running container that are not None. Raises OSError with the runtime's words."""
        record = self._record(cid)
        merged = record.spec.resources.changed(resources)
        try:
            await self._client.runtime(
                "UpdateContainerResources", container_id=cid, linux=config.limits(merged, self.host)
            )
        except Missing as error:
            raise FileNotFoundError(str(error)) from error
        except CallFailed as error:
            raise OSError(str(error)) from error
        failpoint("update.written")
        self.annotate(cid, resources=merged)

    async def tell_resources(self, uid: str, overhead: Any, resources: Any) -> None:
        """Tell the runtime, for its plugins, what a pod's cgroup has now. It may fail, as upstream's: nothing waits."""
        sandbox = self.newest(uid)
        if sandbox is None:
            return
        try:
            await self._client.runtime(
                "UpdatePodSandboxResources", pod_sandbox_id=sandbox.id, overhead=overhead, resources=resources
            )
        except CallFailed as error:
            if not error.unknown_call:  # one of before CRI of 1.33
                log.warning("the runtime was not told of a pod's resources: %s", error, extra={"sandbox": sandbox.id})

    def annotate(
        self, cid: str, *, resources: Resources | None = None, labels: dict[str, str] | None = None
    ) -> ContainerRecord:
        """Change what is kept here; the runtime's labels cannot be changed, and the pod's own record has the rest."""
        record = self._record(cid)
        merged = {**record.spec.labels, **(labels or {})}
        record.spec = msgspec.structs.replace(record.spec, resources=resources or record.spec.resources, labels=merged)
        return record

    def stats(self, cid: str) -> CgroupStats:
        """Counters of a container. Raises OSError."""
        return self.cgroups.stats(self._record(cid).cgroup)

    def upper(self, cid: str) -> Path | None:
        """Nobody but the runtime knows."""
        return None

    async def written(self) -> dict[str, Count]:
        """What containers have written, by id; empty where the runtime does not tell."""
        try:
            answer = await self._client.runtime("ListContainerStats", filter={"label_selector": self._selector})
        except CallFailed as error:
            log.warning("the runtime does not tell what containers have written: %s", error)
            return {}
        found = {}
        for one in answer.stats:
            layer = one.writable_layer
            found[one.attributes.id] = Count(layer.used_bytes.value, layer.inodes_used.value, layer.timestamp / 1e9)
        return found

    async def rotate_log(self, cid: str, to: Path) -> None:
        """Rename the log, and have the runtime begin a new one."""
        Path(self._record(cid).spec.log_path).rename(to)
        failpoint("log.renamed")
        await self.reopen_log(cid)

    async def reopen_log(self, cid: str) -> None:
        """Have the runtime begin a new log where there is none. Raises CallFailed."""
        await self._client.runtime("ReopenContainerLog", container_id=cid)

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        """Remove a stopped sandbox with the containers in it. Idempotent."""
        try:
            await self._client.runtime("RemovePodSandbox", pod_sandbox_id=sandbox.id)
        except Missing:
            pass
        self._drop_sandbox(sandbox.id)
        for cid in self._inside(sandbox):
            self._gone(cid)

    async def stop_sandbox(self, sandbox: Sandbox) -> None:
        """End what runs in a sandbox, tell how it ended, and give the sandbox's network back. Idempotent."""
        sandbox.ready = False
        try:
            await self._client.runtime("StopPodSandbox", deadline=LONG, pod_sandbox_id=sandbox.id)
        except Missing:
            pass
        for cid in self._inside(sandbox):
            if self._records[cid].exit is None:
                await self.refresh(cid)

    def _looked(self, used: set[str]) -> None:
        """Find sandboxes that nobody would remove: what a given-up call made after its pod had been torn down.

        Only those in which nothing is, and that are so at two looks.
        """
        if self._first is None:
            return
        kept = self._first | used
        found = [one for uid, all in self.sandboxes.items() if not self.cared_for(uid) for one in all]
        alone = {one.id: one for one in found if one.id not in kept}
        for cid in self._alone & set(alone):
            log.info("a sandbox that nobody asks for any more is removed", extra={"sandbox": cid})
            self._spawn(self._collect(alone[cid]))
        self._alone = frozenset(alone)

    async def _collect(self, sandbox: Sandbox) -> None:
        try:
            await self.stop_sandbox(sandbox)
            await self.remove_sandbox(sandbox)
            for qos in cgroup_math.QosClass if not self.cared_for(sandbox.uid) else ():
                path = cgroup_math.pod_path(self.cgroup_root, qos, sandbox.uid)
                await asyncio.to_thread(self.cgroups.remove, path)
        except (CallFailed, OSError) as error:
            log.warning("a sandbox cannot be removed: %s", error, extra={"sandbox": sandbox.id})

    async def _remove_named(self, order: Any) -> None:
        """Remove what has an order's name already. Raises CallFailed."""
        wanted = (order.metadata.name, order.metadata.attempt)
        for record in self.of_pod(order.labels.get(labels.POD_UID, "")):
            if (record.spec.name, record.spec.attempt) == wanted:
                await self.delete(record.id, force=True)

    async def _unmake(self, order: Any) -> None:
        """After a call that failed: what it made all the same would hold the name against the next."""
        try:
            await self.look()
            await self._remove_named(order)
        except CallFailed as error:
            log.warning("what a failed call has made cannot be looked for: %s", error)

    def _lost(self, uid: str) -> None:
        self.on_sandbox_lost(uid)
        for sandbox in self.sandboxes.get(uid, ()):
            self._spawn(self._end(sandbox))

    async def _end(self, sandbox: Sandbox) -> None:
        """What still runs in a sandbox that is not whole any more has to go: all start again in another."""
        try:
            await self.stop_sandbox(sandbox)
            await self.look()
        except CallFailed as error:
            log.warning("a sandbox that was lost cannot be stopped: %s", error, extra={"sandbox": sandbox.id})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop(self, cid: str, seconds: int, deadline: float | None) -> None:
        try:
            await self._client.runtime("StopContainer", deadline=deadline, container_id=cid, timeout=seconds)
        except Missing:
            self._gone(cid)
            return
        await self.refresh(cid)
