"""The node's containers in another runtime: a picture of them, kept by asking, and what the agent does with them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.remote import config, labels, records
from nodewright_agent.remote.client import LONG, TIMEOUT, CallFailed, Client, Missing
from nodewright_agent.remote.records import RemoteRecord, Sandbox
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroups import Cgroups, CgroupStats
from nodewright_agent.runtime.errors import ContainerNotFound, ContainerStateError, ExecError, RunContainerError
from nodewright_agent.runtime.spec import ContainerRecord, ExecResult, ExitInfo, Phase, Resources
from nodewright_agent.usage.disk import Count

log = logging.getLogger(__name__)

_UNTIL_KILLED = 1 << 30
"""Seconds that StopContainer gives at a stop signal: when a container is killed is the agent's affair."""


class RemoteContainers:
    """Implements ``pods.containers.Containers``. ``open`` first; what the runtime has stays when the agent ends."""

    def __init__(
        self, client: Client, cgroups: Cgroups, host: config.Host, node_name: str, cgroup_root: str, layers: Path
    ) -> None:
        """Ask this runtime; ``layers``: where it says that it keeps what containers write."""
        self.cgroups, self.layers = cgroups, layers
        self.cgroup_root = "/" + cgroup_root.strip("/")
        self.monitors_cgroup = f"{self.cgroup_root}/monitors"
        self.on_exit: Callable[[str, ExitInfo], None] = lambda cid, info: None
        self.on_sandbox_lost: Callable[[str], None] = lambda uid: None
        self.sandboxes: dict[str, list[Sandbox]] = {}
        """By the pod's UID, the newest last."""
        self._client, self.host = client, host
        self._selector = {labels.NODE: node_name}
        self._records: dict[str, RemoteRecord] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._looking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take the picture for the first time; what an earlier agent had created and not started goes."""
        await self.look()
        for record in list(self._records.values()):
            if record.state.phase is Phase.CREATED:
                await self.delete(record.id)

    async def look(self) -> None:
        """Ask for all sandboxes and containers, and tell of what has ended since. Raises CallFailed."""
        async with self._looking:
            known, held = set(self._records), {one.id for all in self.sandboxes.values() for one in all}
            sandboxes = await self._client.runtime("ListPodSandbox", filter={"label_selector": self._selector})
            containers = await self._client.runtime("ListContainers", filter={"label_selector": self._selector})
            self._take_sandboxes([records.sandbox_of(item) for item in sandboxes.items], held)
            found = {item.id: item for item in containers.containers}
            for cid, item in found.items():
                record = self._records.get(cid)
                if record is None or records.later(records.phase(item.state), record.state.phase):
                    await self.refresh(cid, item.pod_sandbox_id)
            for cid in known - set(found):
                self._gone(cid)

    async def refresh(self, cid: str, sandbox: str = "") -> None:
        """Ask for one container, and tell of its end. Raises CallFailed."""
        try:
            answer = await self._client.runtime("ContainerStatus", container_id=cid)
        except Missing:
            return
        self._take(answer.status, sandbox)

    async def create(self, sandbox: str, order: Any, sandbox_config: Any) -> RemoteRecord:
        """Have a container made, and give its record. Raises CallFailed."""
        try:
            answer = await self._client.runtime(
                "CreateContainer", deadline=LONG, pod_sandbox_id=sandbox, config=order, sandbox_config=sandbox_config
            )
        except CallFailed:
            await self._unmake(sandbox, order.metadata)
            raise
        cid = answer.container_id
        failpoint("create.done")
        await self.refresh(cid, sandbox)
        record = self._records.get(cid)
        if record is None:
            raise ContainerNotFound(f"container {cid} was removed as soon as it was created")
        return record

    async def start(self, cid: str) -> float:
        """Let a created container run; its start time. Raises RunContainerError with the runtime's words."""
        record = self._record(cid)
        try:
            await self._client.runtime("StartContainer", deadline=LONG, container_id=cid)
        except CallFailed as error:
            if error.down or error.late:
                raise
            raise RunContainerError(str(error)) from error
        failpoint("start.done")
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
        given = {name: value for name, value in msgspec.structs.asdict(resources).items() if value or value == 0}
        merged = msgspec.structs.replace(record.spec.resources, **given)
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

    def annotate(
        self, cid: str, *, resources: Resources | None = None, labels: dict[str, str] | None = None
    ) -> ContainerRecord:
        """Change what is kept here; the runtime's labels cannot be changed, and the pod's own record has the rest."""
        record = self._record(cid)
        merged = {**record.spec.labels, **(labels or {})}
        record.spec = msgspec.structs.replace(record.spec, resources=resources or record.spec.resources, labels=merged)
        return record

    def find(self, cid: str) -> RemoteRecord | None:
        """A container; None when there is none."""
        return self._records.get(cid)

    def of_pod(self, pod_uid: str) -> Sequence[RemoteRecord]:
        """The containers of one pod."""
        return [record for record in self._records.values() if record.spec.pod_uid == pod_uid]

    async def list(self) -> list[ContainerRecord]:
        """Every container of this node, oldest first."""
        return sorted(self._records.values(), key=lambda record: record.state.created_at)

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

    # The picture

    def newest(self, uid: str) -> Sandbox | None:
        """A pod's newest sandbox."""
        found = self.sandboxes.get(uid)
        return found[-1] if found else None

    def add_sandbox(self, sandbox: Sandbox) -> None:
        """Note one that was just made."""
        self._drop_sandbox(sandbox.id)
        self.sandboxes.setdefault(sandbox.uid, []).append(sandbox)
        self.sandboxes[sandbox.uid].sort(key=lambda one: (one.attempt, one.created_at))

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        """Remove a stopped sandbox with the containers in it. Idempotent."""
        try:
            await self._client.runtime("RemovePodSandbox", pod_sandbox_id=sandbox.id)
        except Missing:
            pass
        self._drop_sandbox(sandbox.id)
        for cid in [cid for cid, record in self._records.items() if record.sandbox == sandbox.id]:
            self._forget(cid)

    async def stop_sandbox(self, sandbox: Sandbox) -> None:
        """End what runs in a sandbox, and give its network back. Idempotent."""
        sandbox.ready = False
        try:
            await self._client.runtime("StopPodSandbox", deadline=LONG, pod_sandbox_id=sandbox.id)
        except Missing:
            pass

    async def _unmake(self, sandbox: str, name: Any) -> None:
        """After a call that failed: what it made all the same would hold the name against the next."""
        try:
            await self.look()
            for record in list(self._records.values()):
                same = (record.sandbox, record.spec.name, record.spec.attempt) == (sandbox, name.name, name.attempt)
                if same and record.state.phase is Phase.CREATED:
                    await self.delete(record.id)
        except CallFailed as error:
            log.warning("what a failed call has made cannot be looked for: %s", error)

    def _take(self, status: Any, sandbox: str) -> None:
        cid = status.id
        record = self._records.get(cid)
        if record is None:
            record = self._records[cid] = records.of_status(status, sandbox)
            self._locate(record)
            return
        state = records.state_of(status)
        if not records.later(state.phase, record.state.phase):
            return
        state.pid = record.state.pid
        record.state = state
        self._locate(record)
        if state.exit is not None:
            self._told(cid, state.exit)

    def _locate(self, record: RemoteRecord) -> None:
        """Find a running container's cgroup below its pod's: how it is called there is the runtime's affair."""
        if record.state.phase is not Phase.RUNNING or record.place:
            return
        for qos in cgroup_math.QosClass:
            pod = cgroup_math.pod_path(self.cgroup_root, qos, record.spec.pod_uid)
            for name in self.cgroups.children(pod) if self.cgroups.exists(pod) else ():
                if record.id in name:
                    record.place = f"{pod}/{name}"
        if record.place:
            record.state.pid = min(self.cgroups.pids(record.place), default=0)
            found = self.cgroups.limits(record.place)
            given = Resources(
                cpu_shares=found.cpu_shares,
                cpu_quota=found.cpu_quota,
                cpu_period=found.cpu_period,
                memory_limit=found.memory,
            )
            record.spec = msgspec.structs.replace(record.spec, resources=given)

    def _take_sandboxes(self, found: Sequence[Sandbox], held: set[str]) -> None:
        """``held``: those that were known before the question; what was made since may be missing in the answer."""
        now = {one.id for one in found}
        before = {uid: self._ready(uid) for uid in self.sandboxes}
        for sandbox in found:
            self.add_sandbox(sandbox)
        for cid in held - now:
            self._drop_sandbox(cid)
        for uid, ready in before.items():
            if ready and not self._ready(uid):
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

    def _ready(self, uid: str) -> bool:
        newest = self.newest(uid)
        return newest is not None and newest.ready

    def _drop_sandbox(self, sandbox_id: str) -> None:
        for uid, found in list(self.sandboxes.items()):
            found[:] = [one for one in found if one.id != sandbox_id]
            if not found:
                del self.sandboxes[uid]

    def _gone(self, cid: str) -> None:
        record = self._records.get(cid)
        if record is None:
            return
        if record.state.exit is None:
            log.warning("a container is gone from the runtime", extra={"container": cid})
            record.state.phase, record.state.exit = Phase.EXITED, records.lost(time.time())
            self._told(cid, record.state.exit)
        self._forget(cid)

    def _told(self, cid: str, info: ExitInfo) -> None:
        if cid in self._ended:
            self._ended[cid].set()
        failpoint("exit.seen")
        self.on_exit(cid, info)

    def _forget(self, cid: str) -> None:
        self._records.pop(cid, None)
        if (event := self._ended.pop(cid, None)) is not None:
            event.set()

    async def _stop(self, cid: str, seconds: int, deadline: float | None) -> None:
        try:
            await self._client.runtime("StopContainer", deadline=deadline, container_id=cid, timeout=seconds)
        except Missing:
            return
        await self.refresh(cid)

    def _record(self, cid: str) -> RemoteRecord:
        record = self._records.get(cid)
        if record is None:
            raise ContainerNotFound(f"there is no container {cid}")
        return record
