"""The end of a node on this machine: everything that its agent started or made, ended and undone.

Works from what is on disk and in the kernel alone, so it does not matter how the agent ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nodewright_agent.config import AgentConfig
from nodewright_agent.pods import loglinks
from nodewright_agent.runtime import cgroups, hosttools, mountinfo, mounts, processes
from nodewright_agent.runtime.cleanup import kill_helpers, purge
from nodewright_agent.runtime.hostspace import HostSpace

HOMES = (Path("/var/lib/nodewright"), Path("/run/nodewright"))
"""The directories of ours on a host; each is removed when nothing of others is left in it."""

Step = tuple[str, Callable[[], list[str]]]


class StillRunning(Exception):
    """An agent or a proxy is at work on this host; the text names it."""


def purge_node(state_dir: Path, run_dir: Path, netns: str, cgroup_root: str) -> None:
    """End the node's containers and remove its cgroups, mounts and run directory; the agent must have ended.

    What is below ``state_dir`` stays: to the next agent it looks as after a reboot. Links, addresses and rules live in
    the namespace ``netns`` and go with it (``network.hosts.destroy``). Idempotent. Raises OSError or TimeoutError
    naming what could not be removed.
    """
    purge(run_dir=run_dir, state_dir=run_dir, cgroup_root=cgroup_root, cgroups=cgroups.detect())
    mounts.unmount_below(state_dir)


@contextlib.contextmanager
def host_to_itself(config: AgentConfig, seconds: float) -> Iterator[None]:
    """Wait until neither agent nor proxy is at work on this host, and keep agents from starting meanwhile.

    The agent is known by its lock, which we hold then; a proxy by its process, in this network namespace. Blocks.
    Raises StillRunning after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    with _agent_lock(config.state / "agent.lock", deadline):
        while pids := proxies():
            processes.wait_gone(pids, deadline)
            if time.monotonic() >= deadline and (left := proxies()):
                shown = ", ".join(map(str, sorted(left)))
                raise StillRunning(f"a service proxy is still running on this host (process {shown})")
        yield


def proxies() -> set[int]:
    """Processes that run ``nodewright proxy`` in this network namespace."""
    here = os.readlink("/proc/self/ns/net")
    found = set()
    for pid in processes.all_pids():
        words = processes.command_line(pid)
        if not any(verb == "proxy" and _is_program(program) for program, verb in itertools.pairwise(words)):
            continue
        with contextlib.suppress(OSError):  # it has ended
            if os.readlink(f"/proc/{pid}/ns/net") == here:
                found.add(pid)
    return found


def steps(config: AgentConfig) -> list[Step]:
    """What is to be done, in order: a name, and a function that does it and tells what it removed.

    Each is idempotent, looks at nothing but this host, and raises OSError, TimeoutError or RuntimeUnavailable naming
    what it could not remove; those that follow are worth doing all the same. Raises RuntimeUnavailable where
    ``host_tools`` is not what it should be.
    """
    space = HostSpace(config.host_mounts, config.host_root)
    # Here and not in the host's namespace, where the image's own files are not.
    directories = _directories(config)
    elsewhere: list[Step] = [("sandboxes", lambda: _sandboxes(config))] if config.container_runtime_endpoint else []
    return [
        *elsewhere,
        ("containers", lambda: _containers(config)),
        ("mounts", lambda: space.call(lambda: _mounts(directories))),
        ("network", _network),
        ("service rules", _proxy),
        ("log links", lambda: space.call(lambda: _links(config))),
        ("files", lambda: space.call(lambda: _files(directories))),
    ]


def _sandboxes(config: AgentConfig) -> list[str]:
    """Have another runtime remove what it runs for this node."""
    from nodewright_agent.remote import cleanup

    return cleanup.remove_all(config.container_runtime_endpoint, config.node_name)


def _containers(config: AgentConfig) -> list[str]:
    """End every process of ours, and remove the cgroups. Processes are killed by cgroup: none escapes by forking."""
    root = config.cgroup_root
    if root.strip("/") == "":
        raise ValueError("refusing to purge the root cgroup")
    hierarchies = cgroups.detect()
    kill_helpers(config.run_dir)
    if not hierarchies.exists(root):
        return []
    pids = hierarchies.pids(root)
    hierarchies.kill(root)
    hierarchies.remove(root)
    hierarchies.remove_empty_parents(os.path.dirname(root.rstrip("/")), "")
    return [*([f"{len(pids)} processes"] if pids else []), f"cgroup {root}"]


def _mounts(directories: list[Path]) -> list[str]:
    """Unmount in the host's namespace; from there it reaches every namespace that has a copy by propagation."""
    done = []
    for directory in directories:
        done += [point for point in mounts.unmount_below(directory) if point != str(directory)]
    return [f"{len(done)} mounts"] if done else []


def _links(config: AgentConfig) -> list[str]:
    directory = config.log_directories.get("log_links_dir")
    count = loglinks.remove(directory, config.logs) if directory is not None else 0
    return [f"{count} links in {directory}"] if count else []


def _files(directories: list[Path]) -> list[str]:
    removed = []
    for directory in directories:
        if not directory.is_dir():
            continue
        if left := mountinfo.below(mountinfo.read(), directory):
            raise OSError(f"not deleting {directory}: still mounted: {', '.join(left)}")
        shutil.rmtree(directory)
        removed.append(str(directory))
    for home in (home for home in HOMES if any(home in directory.parents for directory in directories)):
        # Also where it is mounted into our own container: only in the host's namespace it must not be a mount point.
        with contextlib.suppress(OSError):  # not there, or others keep something in it
            home.rmdir()
            removed.append(str(home))
    return removed


def _directories(config: AgentConfig) -> list[Path]:
    """All directories of an agent, each once and none below another. RuntimeUnavailable: no such host tools."""
    wanted = {config.state, config.run, config.logs, Path(config.image_root)}
    if config.host_tools:
        wanted.add(hosttools.prefix_of(Path(config.host_tools)).parent)
    return sorted(path for path in wanted if not any(other in path.parents for other in wanted))


def _network() -> list[str]:
    from nodewright_agent.network import cleanup

    return cleanup.remove_all()


def _proxy() -> list[str]:
    from nodewright_agent.proxy import cleanup

    return cleanup.remove_all()


def _is_program(word: str) -> bool:
    return os.path.basename(word) == "nodewright" or word == "nodewright.cli.main"


@contextlib.contextmanager
def _agent_lock(path: Path, deadline: float) -> Iterator[None]:
    """Hold the agents' lock; where there is no state directory no agent has ever been."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        yield
        return
    try:
        # In a thread that is left behind when it takes too long: flock(2) knows no time limit.
        waiter = threading.Thread(target=fcntl.flock, args=(fd, fcntl.LOCK_EX), name="agent lock", daemon=True)
        waiter.start()
        waiter.join(max(0.05, deadline - time.monotonic()))
        if waiter.is_alive():
            raise StillRunning(f"an agent is still running on this host, with state_dir {path.parent}")
        yield
    finally:
        os.close(fd)
