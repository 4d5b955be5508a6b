"""Where streams lead to with another runtime: its own URLs, one for each session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nodewright.kube.objects import Pod
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.streams import MAX_OUTPUT, PodFinder
from nodewright_agent.remote.client import CallFailed, Client
from nodewright_agent.remote.containers import RemoteContainers
from nodewright_agent.runtime.errors import ContainerRuntimeError
from nodewright_agent.server.streaming.backend import StreamError
from nodewright_agent.server.streaming.options import RemoteOptions


class RemoteStreams(PodFinder):
    """The node's pods for ``StreamRoutes``."""

    def __init__(
        self, manager: PodManager, containers: RemoteContainers, client: Client, pods: Callable[[], Sequence[Pod]]
    ) -> None:
        """Look at the manager's pods; ``pods`` gives all of the node."""
        super().__init__(manager, pods)
        self._containers, self._client = containers, client

    def container(self, pod: Pod, name: str) -> RemoteContainer | None:
        """Return a container that runs."""
        cid = self._running(pod, name, self._containers)
        return RemoteContainer(self._containers, self._client, cid) if cid is not None else None

    def ports(self, pod: Pod) -> RemotePorts | None:
        """Return the pod's ports while its sandbox is there."""
        sandbox = self._containers.newest(pod.metadata.uid)
        return RemotePorts(self._client, sandbox.id) if sandbox is not None and sandbox.ready else None


class RemoteContainer:
    """One running container."""

    def __init__(self, containers: RemoteContainers, client: Client, cid: str) -> None:
        self._containers, self._client, self._cid = containers, client, cid

    async def exec_url(self, argv: Sequence[str], options: RemoteOptions) -> str:
        """Have the runtime prepare a command."""
        return await _url(
            self._client,
            "Exec",
            container_id=self._cid,
            cmd=list(argv),
            tty=options.tty,
            stdin=options.stdin,
            stdout=options.stdout,
            stderr=options.stderr,
        )

    async def attach_url(self, options: RemoteOptions) -> str:
        """Have the runtime prepare an attachment."""
        return await _url(
            self._client,
            "Attach",
            container_id=self._cid,
            tty=options.tty,
            stdin=options.stdin,
            stdout=options.stdout,
            stderr=options.stderr,
        )

    async def output(self, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run a command and keep its output."""
        try:
            result = await self._containers.exec(self._cid, argv, max_output=MAX_OUTPUT)
        except ContainerRuntimeError as error:
            raise StreamError(str(error)) from error
        return result.code, result.stdout, result.stderr


class RemotePorts:
    """The ports of one pod."""

    def __init__(self, client: Client, sandbox: str) -> None:
        self._client, self._sandbox = client, sandbox

    async def url(self, ports: Sequence[int]) -> str:
        """Have the runtime prepare their forwarding."""
        return await _url(self._client, "PortForward", pod_sandbox_id=self._sandbox, port=list(ports))


async def _url(client: Client, method: str, **fields: Any) -> str:
    try:
        answer = await client.runtime(method, **fields)
    except CallFailed as error:
        raise StreamError(str(error)) from error
    found: str = answer.url
    return found
