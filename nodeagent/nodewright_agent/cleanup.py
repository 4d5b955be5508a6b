"""The end of a node on this machine: everything that its agent started or made, ended and undone.

Works from what is on disk and in the kernel alone, so it does not matter how the agent ended.
"""

from __future__ import annotations

from pathlib import Path

from nodewright_agent.runtime import cgroups, mounts
from nodewright_agent.runtime.cleanup import purge


def purge_node(state_dir: Path, run_dir: Path, netns: str, cgroup_root: str) -> None:
    """End the node's containers and remove its cgroups, mounts and run directory; the agent must have ended.

    What is below ``state_dir`` stays: to the next agent it looks as after a reboot. Links, addresses and rules live in
    the namespace ``netns`` and go with it (``network.hosts.destroy``). Idempotent. Raises OSError or TimeoutError
    naming what could not be removed.
    """
    purge(run_dir=run_dir, state_dir=run_dir, cgroup_root=cgroup_root, cgroups=cgroups.detect())
    mounts.unmount_below(state_dir)
