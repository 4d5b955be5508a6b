"""inotify in the event loop, which all that watches directories is built on."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
OVERFLOW = 0x4000
"""The kernel dropped events: anything may have changed. Such an event belongs to no watch (-1)."""
ONLY_DIRECTORY = 0x01000000

_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance in the running loop; a host has few of them."""

    def __init__(self, heard: Callable[[int, int, str], None]) -> None:
        """Call ``heard(watch, mask, name)`` for each event; the name is empty for the watched thing itself.

        Raises OSError; EMFILE names the limit, which is the user's on the whole host.
        """
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            few = "no inotify instance is left for this user on the host: raise sysctl fs.inotify.max_user_instances"
            raise OSError(code, few if code == errno.EMFILE else f"inotify_init1: {os.strerror(code)}")
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def watch(self, path: str | Path, mask: int) -> int:
        """Hear of these events at ``path``; returns the number of the watch, the same for the same inode.

        Raises OSError.
        """
        found = int(_libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask)))
        if found < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"inotify_add_watch: {os.strerror(code)}", str(path))
        return found

    def unwatch(self, watch: int) -> None:
        """Hear of it no more; what is gone already is no error."""
        if self._fd >= 0:
            _libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """Stop; idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        for event in events(data):
            self._heard(*event)


def events(data: bytes) -> list[tuple[int, int, str]]:
    """Split what read(2) gave on an inotify descriptor into (watch, mask, name). Pure."""
    found, at = [], 0
    while at + _EVENT.size <= len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        found.append((watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
        at += length
    return found
