"""When a pod passed which step on this node, for ``nodewright trace``: ``<state_dir>/trace/<uid>.jsonl``.

A few lines per pod, written a moment later so that nothing waits for the disk, and removed some time after the pod.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from nodewright_agent.pods.ports import Clock
from nodewright_agent.pods.times import rfc3339_micro

log = logging.getLogger(__name__)

MAX_STEPS = 100
WRITE_DELAY = 0.5
KEEP = 600.0


class Tracer:
    """Collects steps per pod UID."""

    def __init__(self, directory: Path, by: str, clock: Clock) -> None:
        """Write below ``directory``; ``by`` names this agent in every line."""
        self._directory, self._by, self._clock = directory, by, clock
        self._counts: dict[str, int] = {}
        self._pending: dict[str, list[bytes]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def mark(self, uid: str, step: str, at: float | None = None) -> None:
        """Note that the pod has passed ``step`` now (or at ``at``); a pod's later restarts are cut off at a bound."""
        count = self._counts.get(uid, 0)
        if count >= MAX_STEPS:
            return
        self._counts[uid] = count + 1
        if not self._pending:
            asyncio.get_running_loop().call_later(WRITE_DELAY, self.flush)
        time = rfc3339_micro(self._clock() if at is None else at)
        self._pending.setdefault(uid, []).append(msgspec.json.encode({"step": step, "time": time, "by": self._by}))

    def flush(self) -> None:
        """Write what has been collected."""
        pending, self._pending = self._pending, {}
        for uid, lines in pending.items():
            try:
                with self._path(uid).open("ab") as file:
                    file.write(b"".join(line + b"\n" for line in lines))
            except OSError as error:
                log.warning("cannot write the trace of a pod: %s", error)

    def forget(self, uid: str) -> None:
        """Remove the pod's trace after a while, in which it can still be asked for."""
        self._counts.pop(uid, None)
        asyncio.get_running_loop().call_later(KEEP, self._remove, uid)

    def prune(self, live: set[str]) -> None:
        """Remove traces of pods that are gone; called at start."""
        for path in self._directory.glob("*.jsonl"):
            if path.stem not in live:
                path.unlink(missing_ok=True)

    def _remove(self, uid: str) -> None:
        self._pending.pop(uid, None)
        self._path(uid).unlink(missing_ok=True)

    def _path(self, uid: str) -> Path:
        return self._directory / f"{uid}.jsonl"
