"""The host as an agent in a container has it: containers live in the host's mount namespace, the agent in another.

Four kinds of paths meet in an agent; each function that takes one says which it means:

shared   below ``state_dir``, ``run_dir`` and ``log_dir``: the same directory in both namespaces. Mounts that either
         side makes there (root file systems, pinned namespaces, tmpfs, subPaths) reach the other, by propagation.
host's   hostPath volumes, /dev of privileged containers, conmon and runc: looked at in the host's namespace (``call``),
         so that every symbolic link leads where it leads for the runtime.
read     /etc/hosts, resolv.conf: files of the host that are only read, below ``root`` (``read_text``).
own      everything else: configuration, certificates, the image store, Python itself.

Without a namespace to enter (an agent straight on its host) all four are the same, and nothing here costs anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from nodewright_agent.runtime import mountinfo, syscalls
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.nsthread import run_in

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ALSO = ("ipc", "uts")
"""Entered with the mount namespace: a hostIPC Pod's containers inherit the monitor's, which must be the host's."""
_REMEDY = "mount the host's {path} into the agent's container at the same path, with mountPropagation: Bidirectional"


class HostSpace:
    """The mount namespace in which containers live.

    mounts  a namespace file such as ``/proc/1/ns/mnt``; empty: the agent's own namespace
    root    a directory that shows the host's files, such as ``/proc/1/root``
    """

    def __init__(self, mounts: str = "", root: str = "/") -> None:
        self.mounts, self.root = mounts, root

    @property
    def separate(self) -> bool:
        """Whether containers live in another mount namespace than the agent."""
        return bool(self.mounts)

    def command(self, argv: Sequence[str], cwd: str = "/") -> list[str]:
        """The command line that runs ``argv`` (host's paths) in the host's namespace, standing in ``cwd`` there.

        nsenter executes: the process keeps its pid and the descriptors that it was given.
        """
        if not self.separate:
            return list(argv)
        words = ["nsenter", f"--mount={self.mounts}"]
        words += [f"--{name}={path}" for name in _ALSO if os.path.lexists(path := self._sibling(name))]
        return [*words, f"--wdns={cwd}", "--", *argv]

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the host's mount namespace, and give its result or raise what it raised. Blocks.

        In a thread that ends with it; ``work`` must not import, and finds its own mounts in /proc/thread-self.
        """
        if not self.separate:
            return work()
        return run_in(self.mounts, syscalls.CLONE_NEWNS, work)

    def read_text(self, path: str) -> str:
        """A file of the host, below ``root``; links are followed as the host would. Raises OSError."""
        if self.root == "/":
            return Path(path).read_text(errors="replace")
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = syscalls.openat2(root, path, os.O_RDONLY, syscalls.RESOLVE_IN_ROOT)
        finally:
            os.close(root)
        with open(fd, encoding="utf-8", errors="replace") as file:
            return file.read()

    def check(self, shared: Mapping[str, Path], mounted: Mapping[str, Path]) -> None:
        """Find out whether an agent can work from here. Raises RuntimeUnavailable with the path and the remedy.

        ``shared``: directories (by the name of their setting) that must be the same on the host; ``mounted``: those of
        them in which mounts are made, which must reach the host and come back.
        """
        if not self.separate:
            return
        try:
            theirs, entries = self.call(lambda: ({n: _identity(p) for n, p in shared.items()}, mountinfo.read()))
        except OSError as error:
            raise RuntimeUnavailable(
                f"host_mounts {self.mounts}: cannot enter the host's mount namespace: {error.strerror}; "
                "the agent's container must be privileged, with hostPID"
            ) from error
        for name, path in shared.items():
            if theirs[name] is None or theirs[name] != _identity(path):
                raise RuntimeUnavailable(
                    f"{name} {path} is not the host's directory of that name: {_REMEDY.format(path=path)}"
                )
        own = mountinfo.read()
        for name, path in mounted.items():
            here, there = mountinfo.containing(own, path), mountinfo.containing(entries, path)
            group = here.peer_group
            if group is None or group != there.peer_group:
                first = "" if there.peer_group else f" (on the host first: mount --make-shared {there.mount_point})"
                raise RuntimeUnavailable(
                    f"{name} {path} lies on the mount {here.mount_point} with {here.propagation_name} propagation, so "
                    f"what is mounted there does not reach the host; {_REMEDY.format(path=path)}{first}"
                )
        self._check_cgroup_namespace()

    def _check_cgroup_namespace(self) -> None:
        try:
            same = os.readlink("/proc/self/ns/cgroup") == os.readlink(self._sibling("cgroup"))
        except OSError:
            return  # a namespace file that is pinned elsewhere has no siblings to compare with
        if not same:
            raise RuntimeUnavailable(
                "the agent has a cgroup namespace of its own, so that its cgroup paths are not the host's: "
                "make its container privileged (a container runtime leaves those in the host's)"
            )

    def _sibling(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.mounts), name)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino
