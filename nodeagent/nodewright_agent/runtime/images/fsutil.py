"""File-system helpers for state that must survive crashes and for trees that strangers filled."""

import ctypes
import errno
import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

LETTING_GO = 2.0
"""Seconds in which what is left of a killed process must have let go of its lock."""


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replace `path` by `data` so that a reader, or a crash at any point, sees the old or the new content whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and unlinks in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """syncfs(2) on the file system that holds `path`; blocks until all its dirty data is on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"syncfs: {os.strerror(code)}", str(path))
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a file or a directory tree that may be hostile; a missing one is fine.

    Symlinks are removed, never followed. Depth is no problem: a subdirectory is first moved up beside `path`'s own
    children, so no recursion and no long path occurs. Mounts are never crossed: a mount point cannot be moved or
    removed, which raises OSError (EBUSY, EXDEV) and leaves the mounted content alone.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(path)
        return
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _empty(root)
    finally:
        os.close(root)
    os.rmdir(path)


def _empty(root: int) -> None:
    device = os.fstat(root).st_dev
    pending: list[bytes | None] = [None]  # None is the root itself, names are its moved-up subdirectories
    counter = 0
    while pending:
        name = pending.pop()
        here = (
            os.dup(root)
            if name is None
            else os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        )
        try:
            if os.fstat(here).st_dev != device:
                raise OSError(errno.EXDEV, "a mount is in the way")
            for child in os.listdir(here):
                raw = os.fsencode(child)
                if not stat.S_ISDIR(os.stat(raw, dir_fd=here, follow_symlinks=False).st_mode):
                    os.unlink(raw, dir_fd=here)
                    continue
                try:
                    os.rmdir(raw, dir_fd=here)  # most directories deep in a tree are leaves by now
                    continue
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                counter += 1
                moved = b".nw-%d-%s" % (counter, os.urandom(6).hex().encode())
                os.rename(raw, moved, src_dir_fd=here, dst_dir_fd=root)
                pending.append(moved)
        finally:
            os.close(here)
        if name is not None:
            os.rmdir(name, dir_fd=root)


@contextmanager
def locked(path: Path, *, shared: bool = False, blocking: bool = True) -> Iterator[IO[bytes]]:
    """Hold flock(2) on `path` (made when missing); BlockingIOError when not `blocking` and another holds it.

    Blocks the calling thread: use it for short sections, or in a thread.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB))
        yield file


@contextmanager
def held_alone(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold flock(2) on `path` for as long as what it stands for is worked on; raises `refusal` when another does.

    The lock ends with the process, however that ends, and with the children that had not become another program yet:
    so it is waited for a moment. Blocks the calling thread.
    """
    deadline = time.monotonic() + LETTING_GO
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(path, blocking=False))
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise refusal from None
            time.sleep(0.02)
        yield
