"""Opening a log without ever leaving the log directory, and reading it from its start or its last lines.

A Pod with a writable hostPath can put anything into the log directory. So every part of the path is opened from its
parent's descriptor, symbolic links are refused, and only regular files with one name are read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

_BLOCK = 1 << 16
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class UnsafeLog(Exception):
    """The log's path holds something that is no plain file below the log directory."""


def open_directory(root: Path, parts: Sequence[str]) -> int:
    """Open the directory of a log; `parts` are the names below the root. The caller closes the descriptor.

    Raises UnsafeLog for links and odd names, FileNotFoundError where there is nothing.
    """
    fd = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            _check_name(part)
            try:
                inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise UnsafeLog(f"{part!r} in the log directory is no directory") from None
                raise
            os.close(fd)
            fd = inner
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_log(directory_fd: int, name: str) -> int:
    """Open a log file for reading. Raises UnsafeLog for anything but a plain file, FileNotFoundError."""
    _check_name(name)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise UnsafeLog(f"{name!r} in the log directory is no regular file") from None
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(fd)
        raise UnsafeLog(f"{name!r} in the log directory is no regular file with a single name")
    return fd


def _check_name(name: str) -> None:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise UnsafeLog(f"{name!r} is no file name")


def is_current(directory_fd: int, name: str, fd: int) -> bool:
    """Tell whether a name still means the file that is open; after a rotation it does not, or not yet again."""
    try:
        named = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return True  # between the rename and the new file: stay with the old one
    opened = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def tail_offset(fd: int, lines: int) -> int:
    """Find where the last `lines` lines start; a line in several pieces (tag P) counts as one.

    A last line without line feed counts too. Blocking; reads the file backwards.
    """
    size = os.fstat(fd).st_size
    if lines <= 0:
        return size
    position = size
    rest = b""  # the start of the later block's first line
    found = 0
    start = size
    while position > 0:
        step = min(_BLOCK, position)
        position -= step
        data = os.pread(fd, step, position) + rest
        first = data.find(b"\n") + 1 if position > 0 else 0
        if first == 0 and position > 0:
            rest = data  # a line longer than the block
            continue
        for begin, line in _backwards(data, first):
            if _ends_line(line):
                found += 1
                if found > lines:
                    return start
            start = position + begin
        rest = data[:first]
    return start


def _backwards(data: bytes, first: int) -> list[tuple[int, bytes]]:
    """Cut into lines from `first` on; give them with their offsets, last first."""
    found = []
    begin = first
    for line in _split(data[first:]):
        found.append((begin, line))
        begin += len(line)
    return found[::-1]


def _split(data: bytes) -> list[bytes]:
    """Cut at line feeds only; bytes.splitlines also cuts at carriage returns."""
    parts = data.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _ends_line(line: bytes) -> bool:
    """Tell whether a piece ends a line: all do but those tagged P."""
    parts = line.split(b" ", 3)
    return len(parts) < 3 or parts[2].split(b":")[0].rstrip(b"\n") != b"P"
