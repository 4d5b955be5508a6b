"""What streams lead to: the ports that a runtime implements, and what it is given."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nodewright.kube.objects import Pod
from nodewright_agent.server.streaming.flow import Sink, Source
from nodewright_agent.server.streaming.options import RemoteOptions


class SizeSource(Protocol):
    """Sizes of the client's terminal."""

    async def next(self) -> tuple[int, int] | None:
        """Width and height once they change; only the newest counts. None: no more will come."""
        ...


@dataclass(slots=True)
class Streams:
    """A client's side of a command or container; None: the client has no such stream."""

    stdin: Source | None = None
    stdout: Sink | None = None
    stderr: Sink | None = None
    tty: bool = False
    sizes: SizeSource | None = None


class StreamError(Exception):
    """A command, an attachment or a connection failed; the text is for the user."""


class Container(Protocol):
    """One running container."""

    async def exec(self, argv: Sequence[str], streams: Streams) -> int:
        """Run a command until its end; its exit code. Raises StreamError. Cancelled: the command is killed."""
        ...

    async def attach(self, streams: Streams) -> None:
        """Connect to the first process until it ends, or the client has gone. Raises StreamError."""
        ...

    async def output(self, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run a command to its end; exit code, stdout and stderr, of each at most 16 MiB. Raises StreamError."""
        ...


@runtime_checkable
class ContainerElsewhere(Protocol):
    """A running container whose runtime serves its streams itself, each at a URL that is good for one client."""

    async def exec_url(self, argv: Sequence[str], options: RemoteOptions) -> str:
        """Where a command runs once somebody connects. Raises StreamError."""
        ...

    async def attach_url(self, options: RemoteOptions) -> str:
        """Where the first process can be attached to. Raises StreamError."""
        ...

    async def output(self, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run a command to its end; exit code, stdout and stderr. Raises StreamError."""
        ...


class PodPorts(Protocol):
    """The ports of one pod."""

    name: str
    """As errors name the pod."""
    uid: str

    async def connect(self, port: int) -> socket.socket:
        """A connection to localhost in the pod's network, not blocking. Raises StreamError."""
        ...


@runtime_checkable
class PortsElsewhere(Protocol):
    """The ports of a pod whose runtime forwards them itself."""

    async def url(self, ports: Sequence[int]) -> str:
        """Where they are forwarded. Raises StreamError."""
        ...


class NodeStreams(Protocol):
    """The pods of a node, as far as streams lead to them."""

    def pod(self, namespace: str, name: str) -> Pod | None:
        """A pod by its name; None: there is none."""
        ...

    def has_uid(self, pod: Pod, uid: str) -> bool:
        """Whether this is the pod's UID, or that of its mirror."""
        ...

    def container(self, pod: Pod, name: str) -> Container | ContainerElsewhere | None:
        """A running container of any sort; None: none of that name runs."""
        ...

    def ports(self, pod: Pod) -> PodPorts | PortsElsewhere | None:
        """The pod's network; None: it has none (any more)."""
        ...
