"""The termination message of a container: its file, or the end of its log where the policy says so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nodewright.kube.objects import Container

MAX_MESSAGE = 4096
MAX_LOG_BYTES, MAX_LOG_LINES = 2048, 80
_FALLBACK = "FallbackToLogsOnError"


def message_file(directory: Path, container: str, attempt: int) -> Path:
    """Return where a run's termination message goes on the host."""
    return directory / "containers" / container / f"{attempt}-termination-log"


def prepare(path: Path) -> None:
    """Make the file, writable for whomever the container runs as. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    path.touch()
    path.chmod(0o666)


def read(path: Path, log: Path, container: Container | None, exit_code: int) -> str:
    """Return the message; empty where there is none. What the container wrote is bounded and never trusted."""
    text = _tail(path, MAX_MESSAGE)
    policy = container.termination_message_policy if container is not None else ""
    if text or exit_code == 0 or policy != _FALLBACK:
        return text
    return log_end(_tail(log, 16 * MAX_LOG_BYTES))


def log_end(data: str) -> str:
    """Return the last lines of a CRI log without times and streams; partial lines are joined. Pure."""
    lines: list[str] = []
    open_line = False
    for line in data.splitlines()[1:] if not _is_entry(data) else data.splitlines():
        parts = line.split(" ", 3)
        if len(parts) < 3:
            continue
        text = parts[3] if len(parts) == 4 else ""
        if open_line:
            lines[-1] += text
        else:
            lines.append(text)
        open_line = parts[2] == "P"
    joined = "".join(line + "\n" for line in lines[-MAX_LOG_LINES:])
    if open_line:
        joined = joined[:-1]  # what was written last had no end of line
    return joined.encode()[-MAX_LOG_BYTES:].decode(errors="ignore")


def _is_entry(data: str) -> bool:
    """Tell whether the text begins at the start of a log entry (a tail may begin in the middle of one)."""
    head = data[:64].split(" ", 2)
    return len(head) == 3 and head[0][:4].isdecimal() and head[1] in ("stdout", "stderr")


def _tail(path: Path, limit: int) -> str:
    """Return the last bytes of a file (upstream reads the end of both); empty where it cannot be read."""
    try:
        # The container may have replaced what is at the path: no links, no devices, no waiting.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return ""
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""  # a FIFO or a device
