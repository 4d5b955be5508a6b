"""Small files written so that a crash leaves either the old content or the new, never half of one."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nodewright.controlplane.errors import ControlPlaneError, PreconditionError


def make_dir(path: Path, mode: int = 0o755) -> Path:
    """Create `path` with its parents; the last component gets exactly `mode`, also when it existed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
    except OSError as error:
        raise _explained(error, path) from error
    return path


def write_atomic(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replace `path` by `content` in one rename, flushed to disk first."""
    data = content.encode() if isinstance(content, str) else content
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise _explained(error, path) from error


def write_if_changed(path: Path, content: bytes | str, mode: int = 0o600) -> bool:
    """Write atomically unless `path` already holds `content` with `mode`; True when it wrote."""
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.stat().st_mode & 0o777 == mode and path.read_bytes() == data:
            return False
    except OSError:
        pass  # absent or unreadable: written below, where a real problem is reported
    write_atomic(path, data, mode)
    return True


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; `waiting` is called once when somebody else holds it.

    The kernel drops the lock with the process, so a killed holder blocks nobody.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _explained(error, path) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _explained(error: OSError, path: Path) -> ControlPlaneError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PreconditionError(f"no space left on the disk of {path}", "free some space and run the command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PreconditionError(
            f"cannot write {path}: {error.strerror}",
            "choose a directory of yours with --state-dir, or run as the user who owns it",
        )
    return ControlPlaneError(f"cannot write {path}: {error.strerror}")
