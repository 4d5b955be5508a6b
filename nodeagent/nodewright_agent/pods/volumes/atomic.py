"""Write the files of a volume so that readers see one version or the next, never a mixture (upstream's AtomicWriter).

    VOLUME/..2026_01_02_03_04_05.x1y2z3/   the files of one version
    VOLUME/..data -> ..2026_01_02_03_04_05.x1y2z3     swapped by rename
    VOLUME/key -> ..data/key               made once per top-level name

A crash at any point leaves one version visible, the old or the new; the next write removes what it left, even where
there is nothing to change.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods.volumes import ownership
from nodewright_agent.pods.volumes.payload import File, Payload, check
from nodewright_agent.runtime.images.fsutil import remove_tree

DATA = "..data"
_NEW_DATA = "..data_tmp"


def write(directory: Path, payload: Payload, group: int | None = None) -> bool:
    """Make `directory` show `payload`; returns whether anything changed. Raises VolumeError and OSError."""
    payload = check(payload)
    current = _current(directory)
    if current is not None and _same(directory / current, payload, group) and _visible(directory) == _tops(payload):
        _tidy(directory, current)
        return False
    version = _write_version(directory, payload, group)
    failpoint("atomic.written")
    new = directory / _NEW_DATA
    new.unlink(missing_ok=True)
    os.symlink(version, new)
    failpoint("atomic.prepared")
    os.rename(new, directory / DATA)
    failpoint("atomic.swapped")
    wanted = _tops(payload)
    for name in sorted(wanted):
        _link(directory, name)
        failpoint("atomic.linked")
    for name in _visible(directory) - wanted:
        os.unlink(directory / name)
    failpoint("atomic.unlinked")
    _tidy(directory, version)
    return True


def read(directory: Path) -> dict[str, bytes]:
    """What the volume shows now, by path."""
    current = _current(directory)
    if current is None:
        return {}
    base = directory / current
    return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}


def _current(directory: Path) -> str | None:
    try:
        target = os.readlink(directory / DATA)
    except (FileNotFoundError, OSError):
        return None
    return target if "/" not in target and (directory / target).is_dir() else None


def _tidy(directory: Path, version: str) -> None:
    """Remove all versions but one, and what a write that was cut short has left."""
    for entry in os.listdir(directory):
        if entry.startswith("..2") and entry != version:
            remove_tree(directory / entry)
        elif entry == _NEW_DATA:
            os.unlink(directory / entry)


def _tops(payload: Payload) -> set[str]:
    return {path.partition("/")[0] for path in payload}


def _visible(directory: Path) -> set[str]:
    return {name for name in os.listdir(directory) if not name.startswith("..") and (directory / name).is_symlink()}


def _link(directory: Path, name: str) -> None:
    target = os.path.join(DATA, name)
    try:
        os.symlink(target, directory / name)
    except FileExistsError:
        if not (directory / name).is_symlink() or os.readlink(directory / name) != target:
            remove_tree(directory / name)
            os.symlink(target, directory / name)


def _mode(file: File, group: int | None) -> int:
    return file.mode | 0o440 if group is not None else file.mode


def _same(base: Path, payload: Payload, group: int | None) -> bool:
    found = {str(path.relative_to(base)): path for path in base.rglob("*") if not path.is_dir()}
    if set(found) != set(payload):
        return False
    for path, file in payload.items():
        info = os.lstat(found[path])
        if not stat.S_ISREG(info.st_mode) or stat.S_IMODE(info.st_mode) != _mode(file, group):
            return False
        if info.st_uid != (file.uid or 0) or (group is not None and info.st_gid != group):
            return False
        if info.st_size != len(file.data) or found[path].read_bytes() != file.data:
            return False
    return True


def _write_version(directory: Path, payload: Payload, group: int | None) -> str:
    prefix = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    version = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
    try:
        version.chmod(0o755)
        for path, file in payload.items():
            target = version / path
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as stream:
                stream.write(file.data)
                stream.flush()
                if file.uid is not None:
                    os.fchown(fd, file.uid, -1)
                os.fchmod(fd, file.mode)  # whatever the umask
        if group is not None:
            ownership.apply_tree(str(version), group, read_only=True)
    except BaseException:
        remove_tree(version)
        raise
    return version.name
