"""What streams lead to: the ports that a runtime implements, and what it is given."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nodewright_agent.server.streaming.flow import Sink, Source


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


class PodPorts(Protocol):
    """The ports of one pod."""

    name: str
    """As errors name the pod."""
    uid: str

    async def connect(self, port: int) -> socket.socket:
        """A connection to localhost in the pod's network, not blocking. Raises StreamError."""
        ...
