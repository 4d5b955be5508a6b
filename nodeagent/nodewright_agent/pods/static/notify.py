"""inotify with the names of what changed: a file that was removed and came back the same was removed all the same."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

CREATE, DELETE, MOVED_FROM, MOVED_TO, CLOSE_WRITE = 0x100, 0x200, 0x40, 0x80, 0x8
GONE = DELETE | MOVED_FROM
_MODIFY, _ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x2, 0x4, 0x400, 0x800
_MASK = CREATE | GONE | MOVED_TO | CLOSE_WRITE | _MODIFY | _ATTRIB | _DELETE_SELF | _MOVE_SELF
_FLAGS = 0o2000000 | 0o4000  # close on exec, non-blocking
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Watches one directory at a time, in the running loop."""

    def __init__(self, heard: Callable[[str, int], None]) -> None:
        """Call ``heard(name, mask)`` for each change; the name is empty for the directory itself. Raises OSError."""
        self._fd = _libc.inotify_init1(_FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._heard = heard
        self._watched = -1
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def watch(self, directory: Path) -> None:
        """Watch this directory from now on, and none else. Raises OSError."""
        found = _libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(_MASK))
        if found < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
        if self._watched not in (-1, found):
            _libc.inotify_rm_watch(self._fd, self._watched)
        self._watched = found

    def close(self) -> None:
        """Stop."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            descriptor, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            if descriptor in (self._watched, -1):  # of a former directory nobody wants to hear
                self._heard(name, mask)
