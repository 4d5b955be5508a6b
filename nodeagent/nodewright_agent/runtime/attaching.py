"""Attaching to a container's first process, through the attach socket of its monitor.

That is on the bundle, so containers that an earlier agent started are attached to as well.
"""

from __future__ import annotations

import asyncio

from nodewright_agent.runtime import attachsocket, processes
from nodewright_agent.runtime.attachsocket import AttachSocket
from nodewright_agent.runtime.errors import ContainerStateError
from nodewright_agent.runtime.spec import ContainerRecord
from nodewright_agent.runtime.store import Layout
from nodewright_agent.runtime.streams import Source, Streams
from nodewright_agent.runtime.tasks import tasks
from nodewright_agent.runtime.terminal import Resizing

MAX_HELD = 100
_LAST = 10.0
"""Seconds in which a client must have taken the last output of a container: its end is not told before."""


class Attachments:
    """Connects clients to containers.

    With ``stdinOnce`` the input ends with the client that gave it. The monitor ends it with any client, so the
    connections of those that give none are kept, deaf, until the container has ended.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: dict[str, list[AttachSocket]] = {}

    async def attach(self, record: ContainerRecord, streams: Streams) -> None:
        """Connect until the container ends, or its user has: what containerd does when the input ends.

        The input of a client for which the container has none is dropped. Raises ContainerStateError.
        """
        spec = record.spec
        stdin = streams.stdin if spec.stdin else None
        keep = spec.stdin and spec.stdin_once and not spec.tty and stdin is None
        if keep and len(self._held.get(spec.id, ())) >= MAX_HELD:
            raise ContainerStateError(f"container {spec.id} was attached to {MAX_HELD} times without its input")
        directory = self._layout.bundle(spec.id)
        try:
            connection = AttachSocket(directory)
        except OSError as error:
            raise ContainerStateError(f"cannot attach to container {spec.id}: {error.strerror}") from error
        over = False
        try:
            async with tasks() as start:
                ends = [start(attachsocket.output(connection, streams))]
                if stdin is not None:
                    once = spec.stdin_once and not spec.tty
                    feeding = start(attachsocket.input_to(connection, stdin, end=once))
                    ends += [] if once else [feeding]
                elif streams.stdin is not None:
                    start(_drop(streams.stdin))
                if spec.tty and streams.sizes is not None:
                    sizes = Resizing(streams.sizes)
                    sizes.follow(directory)
                    start(sizes.run())
                gone = start(processes.gone(record.state.pid))
                await asyncio.wait((*ends, gone), return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    await asyncio.wait(ends, timeout=_LAST, return_when=asyncio.FIRST_COMPLETED)
                over = ends[0].done() or gone.done()
        finally:
            if keep and not over and record.running:
                connection.deafen()
                self._held.setdefault(spec.id, []).append(connection)
            else:
                connection.close()

    def forget(self, cid: str) -> None:
        """The container has ended."""
        for connection in self._held.pop(cid, ()):
            connection.close()

    def close(self) -> None:
        """Close what is held."""
        for cid in list(self._held):
            self.forget(cid)


async def _drop(stdin: Source) -> None:
    while await stdin.read():
        pass
