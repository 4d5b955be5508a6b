"""One proxy of ours for each network namespace: two would undo each other's rules for as long as both run.

The lock is a Unix socket with an abstract name. Such names belong to the network namespace, as the rules do, and the
kernel frees them however the process ends.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

_NAME = "\0nodewright-proxy"
_INTERVAL = 0.25
"""Seconds between attempts; a successor shall not wait long for a process that is about to end."""


class OnlyOne:
    """The right to program the Services of the network namespace of the calling thread."""

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._socket: socket.socket | None = None

    def take(self) -> bool:
        """Take it, if nobody has it; gives whether it is ours. Raises OSError where sockets cannot be made."""
        if self._socket is not None:
            return True
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            made.bind(_NAME)
        except OSError as error:
            made.close()
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        self._socket = made
        return True

    async def wait(self, told: Callable[[], None]) -> None:
        """Take it as soon as nobody has it; `told` is called once if that is not at once."""
        if self.take():
            return
        told()
        while not self.take():  # noqa: ASYNC110 - the kernel announces no end of a socket
            await asyncio.sleep(_INTERVAL)

    def release(self) -> None:
        """Give it back; nothing happens when it is not held."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
