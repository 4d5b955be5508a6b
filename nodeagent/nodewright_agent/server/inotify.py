"""Directory changes as asyncio events: one inotify instance for all followers, since a host has few of them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_DELETE_SELF = 0x400
_IN_IGNORED = 0x8000
_IN_Q_OVERFLOW = 0x4000
_IN_ONLYDIR = 0x01000000
_IN_CLOEXEC = 0o2000000
_IN_NONBLOCK = 0o4000
_MASK = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_ONLYDIR
_HEADER = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatcher:
    """Wakes those who wait for a change in a directory. Opened by its first watch; `close()` when done."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._fd = -1
        self._waiting: dict[int, set[asyncio.Event]] = {}

    @contextmanager
    def watch(self, directory_fd: int) -> Iterator[asyncio.Event]:
        """Give an event that is set at every change in the directory; clear it before looking. Raises OSError.

        The directory is named by descriptor, so that no path is followed twice.
        """
        if self._fd < 0:
            self._open()
        path = f"/proc/self/fd/{directory_fd}".encode()
        descriptor = _libc.inotify_add_watch(self._fd, path, ctypes.c_uint32(_MASK))
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        event = asyncio.Event()
        self._waiting.setdefault(descriptor, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting.get(descriptor, set())
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(descriptor, None)
                if self._fd >= 0:
                    _libc.inotify_rm_watch(self._fd, descriptor)

    def close(self) -> None:
        """Close the instance and wake everybody, so that nobody waits for what can't come."""
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()

    def _open(self) -> None:
        fd = _libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        self._fd = fd
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            descriptor, mask, _cookie, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size + length
            lost = mask & _IN_Q_OVERFLOW  # then anything may have changed
            for event in set().union(*self._waiting.values()) if lost else self._waiting.get(descriptor, ()):
                event.set()
