"""What a starting agent makes of the containers that an earlier one left."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from pathlib import Path

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import cleanup, execution, processes
from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.exits import ExitCollector
from nodewright_agent.runtime.spec import ContainerRecord, ExitInfo, Phase, container_cgroup
from nodewright_agent.runtime.store import Store

logger = logging.getLogger(__name__)

HOST_RESTARTED = "HostRestarted"
UNKNOWN_EXIT = 255


@functools.cache
def boot_id() -> str:
    """Identifies this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def recover(
    store: Store, cgroups: Cgroups, records: dict[str, ContainerRecord], exits: ExitCollector, cgroup_root: str
) -> None:
    """Fill ``records`` from disk.

    - never let go (creating, created): removed, as nobody was told of them
    - running, monitor alive: followed again
    - ended meanwhile: collected and reported with the code that the monitor wrote
    - running, monitor gone without an exit file: ended, reported as MonitorLost (137)
    - from before a reboot, or the host's run directory was lost since (a host that is a container itself, as a node of
      kind is, comes back with the same kernel and an empty /run): reported as HostRestarted (255)
    - pieces without a record: removed
    """
    store.sweep_sockets()
    for cid in sorted(store.ids()):
        record = store.read(cid)
        since = record is not None and _same_start(record, store)
        if (
            record is None
            or (record.state.phase in (Phase.CREATING, Phase.CREATED))
            or (since and _never_let_go(record))
        ):
            logger.info("container %s was not started: removing what there is of it", cid)
            cgroup = container_cgroup(record.spec) if record is not None else None
            await asyncio.to_thread(execution.end_left, store, cid)
            await asyncio.to_thread(cleanup.wipe, store, cgroups, cid, cgroup, cgroup_root)
            continue
        records[cid] = record
        failpoint("recover.record")
        if record.state.phase is Phase.EXITED:
            continue
        if not since:
            info = ExitInfo(code=UNKNOWN_EXIT, finished_at=time.time(), reason=HOST_RESTARTED)
            exits.finish(record, info)
        elif not exits.collect(cid) and not exits.follow_pid(
            cid, record.state.monitor_pid, str(store.layout.bundle(cid))
        ):
            exits.lost(cid)


def _same_start(record: ContainerRecord, store: Store) -> bool:
    """Whether the host has not been started anew since the container was made."""
    state = record.state
    return state.boot_id == boot_id() and state.run_id in ("", store.run_id)


def _never_let_go(record: ContainerRecord) -> bool:
    """Whether the agent was killed between writing "running" and letting the process go: runc's init still waits."""
    state = record.state
    if state.phase is not Phase.RUNNING or not processes.in_cgroup(state.pid, record.cgroup):
        return False
    words = processes.command_line(state.pid)
    return len(words) == 2 and os.path.basename(words[0]).startswith("runc") and words[1] == "init"
