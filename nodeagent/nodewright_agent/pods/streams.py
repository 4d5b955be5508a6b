"""Where streams lead to: running containers and the networks of this node's pods (implements the server's ports)."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Callable, Sequence

from nodewright.kube.objects import Pod
from nodewright_agent.pods.containers import Containers
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.static.manifest import is_mirror
from nodewright_agent.runtime import nsthread, syscalls
from nodewright_agent.runtime.errors import ContainerRuntimeError
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.server.streaming.backend import Container, PodPorts, StreamError, Streams

MAX_OUTPUT = 16 << 20
"""Bytes kept of each stream of a command that is run to its end, as under containerd."""


class PodFinder:
    """Finds the pods that streams are for."""

    def __init__(self, manager: PodManager, pods: Callable[[], Sequence[Pod]]) -> None:
        """Look at the manager's pods; ``pods`` gives all of the node."""
        self._manager, self._pods = manager, pods

    def pod(self, namespace: str, name: str) -> Pod | None:
        """Return a pod by its name; the newest one, where an older one was deleted by force and is still ending."""
        wanted = (namespace, name)
        found = [one for one in self._pods() if (one.metadata.namespace, one.metadata.name) == wanted]
        return found[-1] if found else None

    def has_uid(self, pod: Pod, uid: str) -> bool:
        """Tell whether this is the pod's UID, or that of its mirror, by which the API server knows a static pod."""
        if pod.metadata.uid == uid:
            return True
        mirrors = (one for one in self._manager.cache.values() if is_mirror(one))
        return any(one.metadata.uid == uid and one.key == pod.key for one in mirrors)

    def _running(self, pod: Pod, name: str, containers: Containers) -> str | None:
        """The id of a container's newest run, if it runs."""
        worker = self._manager.workers.get(pod.metadata.uid)
        run = worker.state.latest(name) if worker is not None else None
        record = containers.find(run.id) if run is not None else None
        return record.id if record is not None and record.running else None


class AgentStreams(PodFinder):
    """The node's pods for ``StreamRoutes``."""

    def __init__(
        self, manager: PodManager, runtime: Runtime, sandboxes: Sandboxes, pods: Callable[[], Sequence[Pod]]
    ) -> None:
        """Look at the manager's pods; ``pods`` gives all of the node."""
        super().__init__(manager, pods)
        self._runtime, self._sandboxes = runtime, sandboxes

    def container(self, pod: Pod, name: str) -> Container | None:
        """Return a container that runs."""
        cid = self._running(pod, name, self._runtime)
        return RuntimeContainer(self._runtime, cid) if cid is not None else None

    def ports(self, pod: Pod) -> PodPorts | None:
        """Return the pod's network while its sandbox is there."""
        uid = pod.metadata.uid
        paths = self._sandboxes.get(uid)
        return SandboxPorts(pod.metadata.name, uid, paths.net) if paths is not None else None


class RuntimeContainer:
    """One running container."""

    def __init__(self, runtime: Runtime, cid: str) -> None:
        self._runtime, self._cid = runtime, cid

    async def exec(self, argv: Sequence[str], streams: Streams) -> int:
        """Run a command on streams."""
        try:
            return await self._runtime.stream(self._cid, argv, streams)
        except ContainerRuntimeError as error:
            raise StreamError(str(error)) from error

    async def attach(self, streams: Streams) -> None:
        """Connect to the first process."""
        try:
            await self._runtime.attach(self._cid, streams)
        except ContainerRuntimeError as error:
            raise StreamError(str(error)) from error

    async def output(self, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run a command and keep its output."""
        try:
            result = await self._runtime.exec(self._cid, argv, max_output=MAX_OUTPUT)
        except ContainerRuntimeError as error:
            raise StreamError(str(error)) from error
        return result.code, result.stdout, result.stderr


class SandboxPorts:
    """One pod's network; ``netns`` None: the host's."""

    def __init__(self, name: str, uid: str, netns: str | None) -> None:
        self.name, self.uid, self._netns = name, uid, netns

    async def connect(self, port: int) -> socket.socket:
        """Connect to localhost, by IPv4 first and then by IPv6, as containerd does."""
        problems = []
        for label, family, address in (("IPv4", socket.AF_INET, "127.0.0.1"), ("IPv6", socket.AF_INET6, "::1")):
            try:
                return await self._dial(family, address, port)
            except OSError as error:
                # The loop puts words of its own in the place of the kernel's.
                said = os.strerror(error.errno).lower() if error.errno else str(error)
                problems.append(f"{label}: dial {address}:{port}: {said}")
        raise StreamError(f"failed to connect to localhost:{port} inside the pod's network, {', '.join(problems)}")

    async def _dial(self, family: socket.AddressFamily, address: str, port: int) -> socket.socket:
        connection = await self._socket(family)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except BaseException:
            connection.close()
            raise
        return connection

    async def _socket(self, family: socket.AddressFamily) -> socket.socket:
        """Make a socket in the pod's network: it stays there, whoever uses it."""
        make = functools.partial(socket.socket, family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if self._netns is None:
            return make()
        return await asyncio.to_thread(nsthread.run_in, self._netns, syscalls.CLONE_NEWNET, make)
