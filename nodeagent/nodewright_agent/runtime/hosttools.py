"""conmon and runc for hosts that have neither: a folder of the agent's image is installed on the host.

The folder has ``PREFIX`` (one line: the absolute directory on the host, which ends in a hash of the contents), ``bin``
with the programs and ``lib`` with all they need; interpreter and library paths point into the prefix. The prefix lies
below the state directory's parent, which is shared with the host (``hostspace``), so that installing is copying.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from nodewright_agent.runtime import processes
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.hostspace import HostSpace

logger = logging.getLogger(__name__)

PROGRAMS = ("conmon", "runc")
_PARTS = ("bin", "lib")
_MOVED, _HALF = ".old-", ".new-"


def prefix_of(source: Path) -> Path:
    """Where the folder's programs expect to be. Raises RuntimeUnavailable for a folder that is no such one."""
    try:
        text = (source / "PREFIX").read_text().strip()
    except OSError as error:
        raise RuntimeUnavailable(f"host_tools {source}: {error.strerror}: PREFIX") from None
    if not os.path.isabs(text) or ".." in Path(text).parts or len(Path(text).parts) < 4:
        raise RuntimeUnavailable(f"host_tools {source}: PREFIX {text!r} is no directory of ours")
    return Path(text)


def install(source: Path) -> Path:
    """Bring the folder to its prefix, unless it is there whole; returns the prefix.

    Every file is compared, so that a damaged installation is replaced; whoever runs its programs keeps them. The new
    one appears whole or not at all. Raises RuntimeUnavailable.
    """
    prefix = prefix_of(source)
    wanted = digest(source)
    for name in PROGRAMS:
        if f"bin/{name}" not in wanted:
            raise RuntimeUnavailable(f"host_tools {source}: lacks bin/{name}")
    try:
        if digest(prefix) == wanted:
            return prefix
        _replace(source, prefix)
        if digest(prefix) != wanted:
            raise RuntimeUnavailable(f"host_tools: {prefix} is not what was written to it: is the disk sound?")
    except OSError as error:
        raise RuntimeUnavailable(f"host_tools: cannot install {prefix}: {error}") from error
    logger.info("host tools are installed", extra={"prefix": str(prefix)})
    return prefix


def remove_others(prefix: Path) -> list[Path]:
    """Remove what other versions (and killed installations) left beside ``prefix``, but for what a process runs.

    Containers of an older agent keep their monitor, and it its program, until they end. Returns what was removed.
    """
    others = [entry for entry in prefix.parent.iterdir() if entry != prefix and entry.is_dir() and _is_ours(entry)]
    if not others:
        return []
    running = set(_running())
    removed = []
    for directory in others:
        if running.isdisjoint(_identities(directory)):
            shutil.rmtree(directory)
            removed.append(directory)
            logger.info("older host tools are removed", extra={"directory": str(directory)})
    return removed


def digest(directory: Path) -> dict[str, str]:
    """SHA-256 and mode of every file, by its path below ``directory``; links by where they lead. Empty: not there."""
    found = {}
    for part in _PARTS:
        for current, _, names in os.walk(directory / part):
            for name in names:
                path = Path(current, name)
                key = str(path.relative_to(directory))
                if path.is_symlink():
                    found[key] = f"-> {os.readlink(path)}"
                else:
                    with path.open("rb") as file:
                        sum_ = hashlib.file_digest(file, "sha256").hexdigest()
                    found[key] = f"{path.stat().st_mode & 0o111:o} {sum_}"
    return found


def _replace(source: Path, prefix: Path) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    new = prefix.with_name(f"{_HALF}{prefix.name}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o755)
    for part in _PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, new / part, symlinks=True)
    shutil.copyfile(source / "PREFIX", new / "PREFIX")
    # On disk before it has its name: after a power failure the hash would be there and the contents not.
    os.sync()
    if prefix.exists():
        prefix.rename(prefix.with_name(f"{_MOVED}{prefix.name}-{os.urandom(4).hex()}"))
    new.rename(prefix)


def _is_ours(directory: Path) -> bool:
    return directory.name.startswith((_MOVED, _HALF)) or (directory / "PREFIX").is_file()


def _running() -> Iterator[tuple[int, int]]:
    """Device and inode of the program of every process, whatever its mount namespace calls it."""
    for pid in processes.all_pids():
        try:
            info = os.stat(f"/proc/{pid}/exe")
        except OSError:
            continue  # it has ended, or is a kernel thread
        yield info.st_dev, info.st_ino


def _identities(directory: Path) -> Iterator[tuple[int, int]]:
    for current, _, names in os.walk(directory):
        for name in names:
            info = os.stat(os.path.join(current, name), follow_symlinks=False)
            yield info.st_dev, info.st_ino


def prepare(space: HostSpace, source: str, runc: str, conmon: str) -> tuple[str, str]:
    """The host's paths of runc and conmon: from ``source`` where it is given (installed now), else as configured.

    Blocking. Raises RuntimeUnavailable.
    """
    if not source:
        return runc, conmon
    prefix = install(Path(source))
    space.check({"host_tools": prefix.parent}, {})
    remove_others(prefix)
    return str(prefix / "bin/runc"), str(prefix / "bin/conmon")
