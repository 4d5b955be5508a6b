"""How containers end: exit files by inotify, lost monitors by pidfd, each reported once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import processes
from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.spec import ContainerRecord, ExitInfo, Phase
from nodewright_agent.runtime.store import Store
from nodewright_agent.runtime.watch import DirectoryWatch

logger = logging.getLogger(__name__)

MONITOR_LOST = "MonitorLost"
_KILLED = 137


class ExitCollector:
    """Follows the monitors of ``records`` and turns ends into ``ExitInfo``: on disk first, then to ``report``."""

    def __init__(
        self,
        store: Store,
        cgroups: Cgroups,
        records: dict[str, ContainerRecord],
        report: Callable[[str, ExitInfo], None],
    ) -> None:
        self._store, self._cgroups, self._records, self._report = store, cgroups, records, report
        self._pidfds: dict[str, int] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: DirectoryWatch | None = None

    def open(self) -> None:
        """Begin to watch the exit directory."""
        self._watch = DirectoryWatch(self._store.layout.exits, self._collect, self._collect_all)

    async def close(self) -> None:
        """Stop watching; nothing on the host changes."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for cid in list(self._pidfds):
            self._unfollow(cid)
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def follow(self, cid: str, pidfd: int) -> None:
        """Watch a monitor; takes the descriptor over."""
        self._pidfds[cid] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._monitor_ended, cid)

    def follow_pid(self, cid: str, pid: int, bundle: str) -> bool:
        """Watch a monitor that an earlier agent started; False when it is gone (or its pid is somebody else's)."""
        if (pidfd := processes.open_pidfd(pid)) is None:
            return False
        # The pidfd is open: from here on the pid cannot be used again unnoticed.
        if bundle not in processes.command_line(pid):
            os.close(pidfd)
            return False
        self.follow(cid, pidfd)
        return True

    def forget(self, cid: str) -> None:
        """Stop following a container that is being removed."""
        self._unfollow(cid)
        self._ended.pop(cid, None)

    async def wait(self, cid: str) -> ExitInfo:
        """Wait for the end of a container in ``records``."""
        record = self._records[cid]
        while record.state.exit is None:
            await self._ended.setdefault(cid, asyncio.Event()).wait()
        return record.state.exit

    async def ended(self, cid: str, *, timeout: float) -> None:
        """Wait until a killed container's monitor has written its exit and ended; after ``timeout`` it is killed."""
        try:
            async with asyncio.timeout(timeout):
                await self.wait(cid)
                if (pidfd := self._pidfds.get(cid)) is not None:
                    copy = os.dup(pidfd)
                    try:
                        await processes.readable(copy)
                    finally:
                        os.close(copy)
        except TimeoutError:
            logger.warning("container %s: its monitor does not end, killing it", cid)
            processes.kill(self._records[cid].state.monitor_pid)
            await self._end_lost(cid)

    def collect(self, cid: str) -> bool:
        """Take the exit file of a container if there is one; True when the container has ended."""
        record = self._records.get(cid)
        if record is None:
            return False
        if record.state.phase is Phase.EXITED:
            return True
        path = self._store.layout.exit_file(cid)
        try:
            code = int(path.read_text())
            finished = path.stat().st_mtime
        except (OSError, ValueError):
            return False
        failpoint("exit.seen")
        self.finish(record, self._describe(record, code, finished))
        return True

    def finish(self, record: ContainerRecord, info: ExitInfo) -> None:
        """Write an end down, and report it. What still runs in the container's cgroup is killed with it."""
        cid = record.id
        started = record.running
        record.state.phase, record.state.exit = Phase.EXITED, info
        try:
            self._store.write_state(cid, record.state)
        except OSError as error:
            # The exit file stays: an agent that starts later reads it again.
            logger.error("container %s: its end cannot be recorded: %s", cid, error)
        failpoint("exit.recorded")
        if self._cgroups.pids(record.cgroup):
            # Without a pid namespace of its own, children outlive the first process; Kubernetes expects them gone.
            self._spawn(asyncio.to_thread(self._cgroups.kill, record.cgroup))
        if cid in self._ended:
            self._ended[cid].set()
        if started:
            self._report(cid, info)

    def lost(self, cid: str) -> None:
        """A monitor died without an exit code: end its container and report 137."""
        self._spawn(self._end_lost(cid))

    async def _end_lost(self, cid: str) -> None:
        record = self._records.get(cid)
        if record is None or self.collect(cid):
            return
        logger.error("container %s: its monitor was lost; ending the container", cid)
        try:
            await asyncio.to_thread(self._cgroups.kill, record.cgroup)
        except TimeoutError as error:
            logger.error("container %s: %s", cid, error)
        if record.state.exit is None:
            oom = self._cgroups.oom_kills(record.cgroup) > 0
            self.finish(
                record, ExitInfo(code=_KILLED, signal=9, oom_killed=oom, finished_at=time.time(), reason=MONITOR_LOST)
            )

    def _describe(self, record: ContainerRecord, code: int, finished: float) -> ExitInfo:
        signal = code - 128 if 128 < code <= 128 + 64 else 0
        # A child killed for memory is not the end of the container: only together with SIGKILL it is OOMKilled.
        oom = code == _KILLED and (
            self._cgroups.oom_kills(record.cgroup) > 0
            or (self._store.layout.bundle(record.id) / "persist" / "oom").exists()
        )
        return ExitInfo(code=code, signal=signal, oom_killed=oom, finished_at=finished)

    def _collect(self, name: str) -> None:
        self.collect(name)

    def _collect_all(self) -> None:
        for cid in list(self._records):
            self.collect(cid)

    def _monitor_ended(self, cid: str) -> None:
        processes.reap(self._pidfds[cid])
        self._unfollow(cid)
        if not self.collect(cid):
            self.lost(cid)

    def _unfollow(self, cid: str) -> None:
        pidfd = self._pidfds.pop(cid, None)
        if pidfd is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("after the end of a container: %s", error)
