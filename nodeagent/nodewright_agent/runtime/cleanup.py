"""Removing containers from what is on disk and in the kernel alone: for failed creations, recovery and purge.

Blocking (it waits for processes to end); call it in a thread. Idempotent at every step.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import mounts, processes
from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.store import Store, remove_tree

logger = logging.getLogger(__name__)


def wipe(store: Store, cgroups: Cgroups, cid: str, cgroup: str | None, cgroup_root: str, *, stray: bool = True) -> None:
    """Kill what runs of a container and remove its cgroup, mounts and files; the record last.

    ``cgroup`` None: found by name below ``cgroup_root``. ``stray``: look for monitors and runtimes too that nobody
    wrote down.
    """
    if stray:
        kill_helpers(str(store.layout.bundle(cid)))
    failpoint("wipe.helpers")
    for path in [cgroup] if cgroup is not None else find_cgroups(cgroups, cgroup_root, cid):
        if cgroups.exists(path):
            cgroups.kill(path)
            failpoint("wipe.killed")
            cgroups.remove(path)
    failpoint("wipe.cgroup")
    store.remove(cid)


def purge(*, run_dir: str | Path, state_dir: str | Path, cgroup_root: str, cgroups: Cgroups) -> None:
    """Remove everything that a node's runtime and sandboxes made: processes, cgroups, mounts, directories.

    Works from disk and kernel state alone; nothing of it need exist. The agent must have ended. Raises OSError or
    TimeoutError naming what could not be removed; can be repeated.
    """
    if cgroup_root.strip("/") == "":
        raise ValueError("refusing to purge the root cgroup")
    run, state = Path(run_dir), Path(state_dir)
    kill_helpers(str(run))
    failpoint("purge.helpers")
    if cgroups.exists(cgroup_root):
        cgroups.kill(cgroup_root)
        failpoint("purge.killed")
        cgroups.remove(cgroup_root)
        cgroups.remove_empty_parents(os.path.dirname(cgroup_root.rstrip("/")), "")
    failpoint("purge.cgroups")
    for directory in (run, state):
        mounts.unmount_below(directory)
        failpoint("purge.unmounted")
        remove_tree(directory)


def kill_helpers(prefix: str, timeout: float = 10.0) -> None:
    """SIGKILL every monitor and runtime process that works at or below ``prefix``, until there is none."""
    deadline = time.monotonic() + timeout
    while pids := processes.with_argument(prefix):
        for pid in pids:
            processes.kill(pid)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes do not end: {pids}")
        processes.wait_gone(pids, deadline)


def find_cgroups(cgroups: Cgroups, root: str, name: str) -> list[str]:
    """Cgroup paths below ``root`` whose last part is ``name``."""
    found = set()
    for mount in cgroups.hierarchies():
        base = mount / root.strip("/")
        for current, directories, _ in os.walk(base):
            if name in directories:
                found.add("/" + str((Path(current) / name).relative_to(mount)))
    return sorted(found)
