"""How far a pod's resize got; part of its record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pending:
    """A wish that could not be granted. ``reason``: Deferred (tried again) or Infeasible."""

    reason: str
    message: str
    generation: int
    since: float


@dataclass(slots=True)
class Progress:
    """Resources were granted, and are still to be given to cgroup and containers."""

    generation: int
    since: float
    error: str = ""
    """Why the last try failed."""
    retry_at: float = 0.0


@dataclass(slots=True)
class ResizeState:
    """Both may be set at once: an older resize is under way while a newer one waits."""

    pending: Pending | None = None
    progress: Progress | None = None
    busy: bool = False
    """Cgroups are being written; never true in a record that is read back."""
