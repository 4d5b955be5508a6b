"""What a command or a container is connected to: the runtime's view of somebody's standard streams and terminal."""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """Where input comes from."""

    async def read(self) -> bytes:
        """What came next; empty at the end."""
        ...


class Sink(Protocol):
    """Where output goes to."""

    async def write(self, data: bytes) -> None:
        """Hand on; waits while the other side takes nothing. Raises ConnectionError when it is gone."""
        ...


class SizeSource(Protocol):
    """Sizes of a terminal."""

    async def next(self) -> tuple[int, int] | None:
        """Width and height once they change; None: no more will come."""
        ...


class Streams(Protocol):
    """None: there is no such stream; output that nobody takes is read and dropped."""

    @property
    def stdin(self) -> Source | None:
        """Input."""
        ...

    @property
    def stdout(self) -> Sink | None:
        """Output; of a terminal, all of it."""
        ...

    @property
    def stderr(self) -> Sink | None:
        """Errors."""
        ...

    @property
    def tty(self) -> bool:
        """Whether there is a terminal between."""
        ...

    @property
    def sizes(self) -> SizeSource | None:
        """The terminal's sizes."""
        ...
