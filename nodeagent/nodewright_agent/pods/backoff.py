"""Delays between restarts of a container and between pulls of an image: pure functions of the clock's value.

Rules of client-go's ``flowcontrol.Backoff`` as kubelet uses it: the first repetition comes at once, the second after
the initial delay, then doubling up to the maximum; ten minutes without a failure start afresh, whatever the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodewright_agent.pods.model import Backoff

EXPIRY = 600.0


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """First and longest delay, in seconds."""

    initial: float = 10.0
    maximum: float = 300.0


def _expired(entry: Backoff, event: float) -> bool:
    return event - entry.updated_at > EXPIRY


def blocked_until(entry: Backoff | None, event: float, now: float, policy: BackoffPolicy) -> float | None:
    """Return until when the next try has to wait, counted from ``event`` (the last end); None: it may go ahead."""
    if entry is None or _expired(entry, event):
        return None
    until = event + entry.delay
    return until if now < until else None


def advance(entry: Backoff | None, event: float, now: float, policy: BackoffPolicy) -> Backoff:
    """Return the entry after a try at ``now`` that followed ``event``."""
    if entry is None or _expired(entry, event):
        return Backoff(policy.initial, now)
    return Backoff(min(entry.delay * 2, policy.maximum), now)


def format_duration(seconds: float) -> str:
    """Write a duration as Go does: ``10s``, ``2m40s``, ``1m0s``, ``1.5s``, ``12ms``."""
    if seconds < 1:
        if seconds <= 0:
            return "0s"
        return f"{_trim(seconds * 1000)}ms" if seconds >= 0.001 else f"{_trim(seconds * 1_000_000)}µs"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{_trim(rest)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _trim(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
