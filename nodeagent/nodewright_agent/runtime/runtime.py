"""Containers of one node: created under a monitor through runc, followed by events, found again after a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import (
    apparmor,
    attaching,
    bundle,
    cgroups,
    cleanup,
    conmon,
    execution,
    features,
    processes,
    recovery,
    signals,
)
from nodewright_agent.runtime.cgroups import CgroupLimits, Cgroups, CgroupStats
from nodewright_agent.runtime.errors import (
    ContainerNotFound,
    ContainerRuntimeError,
    ContainerStateError,
    CreateContainerError,
    RunContainerError,
    RuntimeUnavailable,
)
from nodewright_agent.runtime.exits import ExitCollector
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.probe import RuntimeInfo, probe
from nodewright_agent.runtime.spec import (
    ContainerRecord,
    ContainerSpec,
    ContainerState,
    ExecResult,
    ExitInfo,
    Phase,
    Resources,
    container_cgroup,
    problems,
)
from nodewright_agent.runtime.store import Layout, Store
from nodewright_agent.runtime.streams import Streams

logger = logging.getLogger(__name__)

ExitHandler = Callable[[str, ExitInfo], None]


class Runtime:
    """Runs containers. ``open`` first, ``close`` last; containers live on after ``close`` and after the process.

    run_dir     a directory of its own, lost at reboot, with a short path; becomes a private mount, but for a ``host``
                that is a mount namespace of its own: then both directories are shared with it
    state_dir   a directory of its own on disk: records and writable layers
    cgroup_root everything below it is ours: pods' cgroups, and ``monitors``
    on_exit     called in the loop with (id, ExitInfo) for each container that ends, or that ``open`` finds ended
    """

    def __init__(
        self,
        *,
        run_dir: str | Path,
        state_dir: str | Path,
        cgroup_root: str,
        runc: str = "runc",
        monitor: str = "conmon",
        on_exit: ExitHandler | None = None,
        host: HostSpace | None = None,
        hierarchies: Cgroups | None = None,
        timeout: float = 120.0,
        parallel: int | None = None,
    ) -> None:
        self.layout = Layout(run_dir, state_dir)
        self.layers = self.layout.state  # what containers write is on its file system
        self.host = host or HostSpace()
        self.store = Store(self.layout, private=not self.host.separate)
        self.cgroups = hierarchies if hierarchies is not None else cgroups.detect()
        self.cgroup_root = "/" + cgroup_root.strip("/")
        self.on_exit = on_exit
        self.timeout = timeout
        self._programs = (runc, monitor)
        self._info: RuntimeInfo | None = None
        self._records: dict[str, ContainerRecord] = {}
        self._exits = ExitCollector(self.store, self.cgroups, self._records, self._report)
        self._attachments = attaching.Attachments(self.layout)
        self._warming: asyncio.Future[None] | None = None
        # More runc processes at once than this only wait for each other.
        self._slots = asyncio.Semaphore(parallel or 2 * (os.cpu_count() or 1))

    @property
    def info(self) -> RuntimeInfo:
        """What ``probe`` found. Raises RuntimeUnavailable before ``open``."""
        if self._info is None:
            raise RuntimeUnavailable("the runtime is not open")
        return self._info

    @property
    def monitors_cgroup(self) -> str:
        """Where monitors live, so that their memory is accounted for and is not the pods'."""
        return f"{self.cgroup_root}/monitors"

    async def probe(self) -> RuntimeInfo:
        """Find out versions and privileges. Raises RuntimeUnavailable."""
        return await probe(*self._programs, self.cgroups, self.host)

    async def open(self) -> RuntimeInfo:
        """Probe, pick up what an earlier agent left (see ``recovery``), and follow exits from now on."""
        self.store.prepare()
        directories = {"run_dir": self.layout.run, "state_dir": self.layout.state}
        self.host.check(directories, directories)
        self._info = await self.probe()
        if apparmor.enabled():
            problem = await apparmor.load(self.host, self.layout.run)
            told = (f"AppArmor: containers run without the default profile: {problem}",) if problem else ()
            self._info = msgspec.structs.replace(
                self._info, app_armor=True, app_armor_default=not problem, warnings=(*self._info.warnings, *told)
            )
        for warning in self._info.warnings:
            logger.warning("%s", warning)
        self.cgroups.create(self.monitors_cgroup)
        swap = self.cgroups.limits_swap(self.monitors_cgroup)
        self._info = msgspec.structs.replace(self._info, limits_swap=swap)
        self._exits.open()
        await recovery.recover(self.store, self.cgroups, self._records, self._exits, self.cgroup_root)
        return self._info

    async def know(self, programs: Iterable[str]) -> None:
        """Ask further OCI runtimes what they can do; containers that need more of them are refused."""
        found = {program: await features.ask(program, self.host) for program in programs}
        self._info = msgspec.structs.replace(self.info, handlers=found)

    async def close(self) -> None:
        """Stop following; the containers go on."""
        if self._warming is not None:
            await self._warming
        self._attachments.close()
        await self._exits.close()

    def prewarm(self) -> None:
        """Tell that a container will be created within some 10 ms (a pod has appeared): saves about 9 ms of ``create``.

        Returns at once. See ``Cgroups.warm``.
        """
        if self._warming is None or self._warming.done():
            self._warming = asyncio.get_running_loop().run_in_executor(None, self.cgroups.warm)

    async def create(self, spec: ContainerSpec) -> None:
        """Prepare the root and let runc create the container; its process waits to be let go by ``start``.

        Raises CreateContainerError (image, user, mounts, disk) or RunContainerError (runc refused: no such command...);
        nothing of the container is left then.
        """
        if found := problems(spec):
            raise CreateContainerError("; ".join(found))
        if spec.id in self._records:
            raise ContainerStateError(f"container {spec.id} exists")
        record = ContainerRecord(spec=spec, state=ContainerState(boot_id=recovery.boot_id(), run_id=self.store.run_id))
        self._records[spec.id] = record
        try:
            async with self._slots:
                await self._create(record)
        except BaseException as error:
            await self._wipe(spec.id)
            if isinstance(error, OSError) and not isinstance(error, ContainerRuntimeError):
                raise CreateContainerError(f"failed to create the container: {error}") from error
            raise

    async def start(self, cid: str) -> float:
        """Let a created container run; its start time (Unix seconds). Raises RunContainerError and leaves nothing."""
        record = self._record(cid)
        if record.state.phase is not Phase.CREATED:
            raise ContainerStateError(f"container {cid} is {record.state.phase}, not created")
        record.state.phase = Phase.RUNNING
        record.state.started_at = time.time()
        try:
            self.store.write_state(cid, record.state)
            failpoint("start.recorded")
            program = self._program(record)
            await conmon.start(program, self.layout.runc, cid, record.state.pid, self.host, timeout=self.timeout)
        except BaseException as error:
            await self._wipe(cid)
            if isinstance(error, TimeoutError | OSError):
                raise RunContainerError(f"failed to start the container: {error or 'timed out'}") from error
            raise
        failpoint("start.done")
        return record.state.started_at

    async def kill(self, cid: str, signal: int | str = "TERM") -> None:
        """Send a signal to the container's first process; nothing happens when it has ended."""
        record = self._record(cid)
        number = signals.parse(signal)
        if record.state.phase is Phase.EXITED or not processes.in_cgroup(record.state.pid, record.cgroup):
            return
        processes.kill(record.state.pid, number)

    async def delete(self, cid: str, force: bool = False) -> None:
        """Remove an ended container; with ``force`` kill it first (its exit is then reported as usual). Idempotent."""
        record = self._records.get(cid)
        if record is None:
            return
        if record.state.phase is not Phase.EXITED:
            if not force:
                raise ContainerStateError(f"container {cid} is {record.state.phase}: stop it first")
            if record.running:
                await asyncio.to_thread(self.cgroups.kill, record.cgroup)
                await self._exits.ended(cid, timeout=10)
        await self._wipe(cid, stray=False)

    async def wait(self, cid: str) -> ExitInfo:
        """Wait until a container has ended."""
        self._record(cid)
        return await self._exits.wait(cid)

    async def exec(
        self,
        cid: str,
        argv: Sequence[str],
        *,
        env: Sequence[str] = (),
        timeout: float | None = None,
        max_output: int = 1 << 20,
    ) -> ExecResult:
        """Run a command in a running container, as its user and in its working directory.

        ``max_output`` bytes are kept of each stream, the rest is read and dropped. After ``timeout`` seconds the
        command is killed and ``timed_out`` set. Raises ExecError when it cannot be run at all.
        """
        record, info = self._running(cid)
        request = execution.Request(argv=list(argv), env=list(env), timeout=timeout, max_output=max_output)
        return await execution.execute(record, request, self.layout, info, self.host)

    async def stream(self, cid: str, argv: Sequence[str], streams: Streams) -> int:
        """Run a command in a running container as ``exec`` does, on somebody's streams; its exit code.

        Cancelled: the command is killed. Raises ExecError, ContainerStateError.
        """
        record, info = self._running(cid)
        request = execution.Request(argv=list(argv))
        return await execution.stream(record, request, streams, self.layout, info, self.host)

    async def attach(self, cid: str, streams: Streams) -> None:
        """Connect to the first process until it ends, or its user has; nothing else happens to it.

        Raises ContainerStateError.
        """
        record, _ = self._running(cid)
        await self._attachments.attach(record, streams)

    async def update(self, cid: str, resources: Resources) -> None:
        """Change the limits of a running container that are not None (in-place resize), and its record.

        The OCI runtime has no part in it: its own state file only serves ``update``, which nobody calls; neither exec
        nor kill nor delete writes limits. Raises OSError as the kernel says (EBUSY: more memory is in use).
        """
        record = self._record(cid)
        limits = CgroupLimits(
            cpu_shares=resources.cpu_shares,
            cpu_quota=resources.cpu_quota,
            cpu_period=resources.cpu_period,
            memory=resources.memory_limit,
            pids=resources.pids_limit,
        )
        await asyncio.to_thread(self.cgroups.update, record.cgroup, limits)
        failpoint("update.written")
        self.annotate(cid, resources=record.spec.resources.changed(resources))

    def annotate(
        self, cid: str, *, resources: Resources | None = None, labels: dict[str, str] | None = None
    ) -> ContainerRecord:
        """Change what a container's record says of its resources, and labels; what is not given stays."""
        record = self._record(cid)
        merged = {**record.spec.labels, **(labels or {})}
        record.spec = msgspec.structs.replace(record.spec, resources=resources or record.spec.resources, labels=merged)
        self.store.rewrite_spec(record.spec)
        return record

    def find(self, cid: str) -> ContainerRecord | None:
        """A container; None when there is none."""
        return self._records.get(cid)

    def stats(self, cid: str) -> CgroupStats:
        """Counters of a container; also after its end until it is deleted."""
        return self.cgroups.stats(self._record(cid).cgroup)

    def upper(self, cid: str) -> Path | None:
        """The directory of what a container has written."""
        return self.layers / cid / "upper"

    def of_pod(self, pod_uid: str) -> Sequence[ContainerRecord]:
        """The containers of one pod."""
        return [record for record in self._records.values() if record.spec.pod_uid == pod_uid]

    def alive(self, cid: str) -> bool:
        """Whether a container runs, asked of the kernel: its end may not have been told yet."""
        record = self._records.get(cid)
        return record is not None and record.running and processes.in_cgroup(record.state.pid, record.cgroup)

    async def list(self) -> list[ContainerRecord]:
        """Every container that exists, oldest first: created, running, ended and not yet deleted."""
        return sorted(self._records.values(), key=lambda record: record.state.created_at)

    async def rotate_log(self, cid: str, to: Path) -> None:
        """Rename the log to ``to`` and let the monitor begin a new one; returns when the new file is there."""
        await self._new_log(cid, to)

    async def reopen_log(self, cid: str) -> None:
        """Let the monitor begin a new log where there is none; returns when it is there."""
        await self._new_log(cid, None)

    async def _new_log(self, cid: str, to: Path | None) -> None:
        record = self._record(cid)
        try:
            await conmon.new_log(self.layout.bundle(cid), Path(record.spec.log_path), to)
        except OSError as error:
            raise ContainerStateError(f"container {cid}: the log cannot be reopened: {error}") from error

    async def purge(self) -> None:
        """Kill and remove everything of this runtime, and close. Nothing of others is touched."""
        await self.close()
        self._records.clear()
        await asyncio.to_thread(
            cleanup.purge,
            run_dir=self.layout.run,
            state_dir=self.layout.state,
            cgroup_root=self.cgroup_root,
            cgroups=self.cgroups,
        )

    async def _create(self, record: ContainerRecord) -> None:
        spec, state, layout, info = record.spec, record.state, self.layout, self.info
        failpoint("create.before")
        self.store.write_spec(spec)
        self.store.write_state(spec.id, state)
        failpoint("create.recorded")
        bundle.prepare(spec, state, layout, info, self.host)
        if not self.cgroups.exists(spec.cgroup_parent):
            self.cgroups.create(spec.cgroup_parent)
        command = conmon.command(spec, layout, info.conmon, self._program(record))
        state.pid, state.monitor_pid, pidfd = await conmon.create(
            command,
            self.host,
            # In a thread: the kernel may make the first move of a process wait 10 ms.
            place=lambda pid: asyncio.to_thread(self._place, pid),
            timeout=self.timeout,
        )
        self._exits.follow(spec.id, pidfd)
        failpoint("create.answered")
        state.phase = Phase.CREATED
        state.created_at = time.time()
        self.store.write_state(spec.id, state)
        failpoint("create.done")

    def _program(self, record: ContainerRecord) -> str:
        """The OCI runtime of a container: its runtime class's, else the node's."""
        return record.spec.runtime or self.info.runc

    def _place(self, pid: int) -> None:
        """Take a new monitor away from the agent: it is to outlive it, also where the agent is in a container."""
        self.cgroups.enter(self.monitors_cgroup, pid, everywhere=self.host.separate)
        if self.host.separate:
            # Not what kubelet gives the agent's container: the monitor of a Guaranteed pod must not be the first to go.
            processes.protect(pid, self.info.oom_score_floor)

    async def _wipe(self, cid: str, *, stray: bool = True) -> None:
        record = self._records.pop(cid, None)
        self._exits.forget(cid)
        cgroup = container_cgroup(record.spec) if record is not None else None
        work = asyncio.to_thread(cleanup.wipe, self.store, self.cgroups, cid, cgroup, self.cgroup_root, stray=stray)
        # A caller that is being cancelled must not leave half of a container.
        await asyncio.shield(work)

    def _record(self, cid: str) -> ContainerRecord:
        record = self._records.get(cid)
        if record is None:
            raise ContainerNotFound(f"no container {cid}")
        return record

    def _running(self, cid: str) -> tuple[ContainerRecord, RuntimeInfo]:
        """A running container, and the runtime that it has. Raises ContainerStateError."""
        record = self._record(cid)
        if not record.running:
            raise ContainerStateError(f"container {cid} is not running")
        return record, msgspec.structs.replace(self.info, runc=self._program(record))

    def _report(self, cid: str, info: ExitInfo) -> None:
        self._attachments.forget(cid)
        if self.on_exit is not None:
            self.on_exit(cid, info)
