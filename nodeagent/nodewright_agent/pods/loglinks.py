"""Links to the logs of containers in one flat directory, under the names that log collectors look for.

``/var/log/containers/<pod>_<namespace>_<container>-<id>.log``, as kubelet makes them (pkg/kubelet/kuberuntime/
legacy.go). A log that is rotated keeps its name, so a link is made once for each run, and goes with the Pod's logs.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from nodewright.kube.objects import Pod

log = logging.getLogger(__name__)

_SUFFIX = ".log"
_MAX_NAME = 255
"""Bytes of a file's name; what is too long loses its end, the id."""


def name(pod: Pod, container: str, run_id: str) -> str:
    """Return the link's file name. Pure."""
    whole = f"{pod.metadata.name}_{pod.metadata.namespace}_{container}-{run_id}"
    return whole[: _MAX_NAME - len(_SUFFIX)] + _SUFFIX


def make(directory: Path, pod: Pod, container: str, run_id: str, target: Path) -> None:
    """Link to a run's log, which need not be there yet. What cannot be linked is told, and runs all the same."""
    link = directory / name(pod, container, run_id)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        with contextlib.suppress(FileExistsError):  # of an agent that was killed here
            link.symlink_to(target)
    except OSError as error:
        log.warning("a log is not linked: %s", error, extra={"pod": pod.key, "link": str(link)})


def remove(directory: Path, logs: Path) -> int:
    """Remove the links that lead below ``logs``, and no others; how many there were. Idempotent. Raises OSError."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return 0
    return sum(_remove(Path(entry.path), logs) for entry in entries if entry.is_symlink())


def _remove(link: Path, logs: Path) -> bool:
    try:
        if logs not in Path(os.readlink(link)).parents:
            return False
        link.unlink()
    except FileNotFoundError:  # another Pod's, and gone with that Pod meanwhile
        return False
    return True
