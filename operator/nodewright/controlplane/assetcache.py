"""A directory of verified binaries: each with its sha256, checked when read.

Hashing 100 MB takes a noticeable part of the start, so a stamp remembers size, mtime and inode of the file that was
verified; any change of them brings the hash back. The record is written last, so a binary without one is an
installation that never finished.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from nodewright.controlplane.files import locked, make_dir, write_atomic

logger = logging.getLogger(__name__)


class AssetRecord(msgspec.Struct, frozen=True):
    """What is known of a cached binary: its checksum, where it came from, and the file that was verified."""

    sha256: str
    source: str
    obtained: float
    size: int
    mtime_ns: int
    inode: int


def cache_root(environ: Mapping[str, str]) -> Path:
    """Where binaries are cached."""
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".cache")
    return Path(base) / "nodewright" / "assets"


def sha256_of(path: Path) -> str:
    """Checksum of a file, as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class AssetCache:
    """The binaries of one release for one platform."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, name: str) -> Path | None:
        """The binary, verified; None when it is absent or not what was installed (which is logged)."""
        path = self.directory / name
        try:
            record = msgspec.json.decode(self._record_path(name).read_bytes(), type=AssetRecord)
            info = path.stat()
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None
        if (info.st_size, info.st_mtime_ns, info.st_ino) == (record.size, record.mtime_ns, record.inode):
            return path
        if sha256_of(path) != record.sha256:
            logger.warning("%s is not the file that was installed (its sha256 differs): getting it again", path)
            return None
        self._write_record(name, record.sha256, record.source, info)
        return path

    def install(self, name: str, temporary: Path, sha256: str, source: str) -> Path:
        """Move `temporary` (in `directory`) into place under `name` and record its checksum."""
        path = self.directory / name
        temporary.chmod(0o755)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        self._record_path(name).unlink(missing_ok=True)
        os.replace(temporary, path)
        self._write_record(name, sha256, source, path.stat())
        return path

    def temporary(self, name: str) -> Path:
        """A file in the cache's directory to be filled and given to `install`; what a killed run left is removed."""
        make_dir(self.directory)
        for old in self.directory.glob(f".{name}.*.part"):
            old.unlink(missing_ok=True)
        return self.directory / f".{name}.{os.getpid()}.part"

    def locked(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Only one process at a time downloads or builds."""
        return locked(make_dir(self.directory) / ".lock", waiting)

    def _record_path(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _write_record(self, name: str, sha256: str, source: str, info: os.stat_result) -> None:
        record = AssetRecord(sha256, source, time.time(), info.st_size, info.st_mtime_ns, info.st_ino)
        try:
            write_atomic(self._record_path(name), msgspec.json.encode(record), 0o644)
        except Exception:
            # a cache that we may read and not write (another user's): verified again next time
            if not self._record_path(name).exists():
                raise
