"""Times and ids as CRI has them."""

from __future__ import annotations

import secrets
import time


def now() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


def nanoseconds(seconds: float) -> int:
    """The runtime's seconds as CRI's nanoseconds."""
    return round(seconds * 1e9)


def new_id() -> str:
    """64 hexadecimal digits, as CRI runtimes have them and crictl shortens them to 13."""
    return secrets.token_hex(32)
