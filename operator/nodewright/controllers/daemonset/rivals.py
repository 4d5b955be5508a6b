"""Noticing that upstream's controller serves an apps/v1 DaemonSet too. Pure.

Both would create and delete pods for it, and undo what the other does. Upstream's controller is known by its writes of
the status: nothing else in kube-controller-manager writes that, and nobody else does so under its name.
"""

from __future__ import annotations

import msgspec

from nodewright.controllers.daemonset.model import DaemonSet

# Whose user agents upstream's controller has: its own program's, and those of distributions that have it inside.
UPSTREAM = frozenset({"kube-controller-manager", "k3s", "kubelite"})
PAUSE = 60.0  # seconds; each further write of upstream's begins them anew


class _Seen(msgspec.Struct):
    uid: str
    written: str
    until: float = 0.0


class Rivals:
    """Knows, per DaemonSet, when upstream wrote last, and for how long it is left alone.

    What was written before the first look is history: whoever wrote it may be switched off since. Times of writes are
    the API server's and are only compared with each other; `now` is seconds of any clock that never goes back.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self._seen: dict[str, _Seen] = {}

    def look(self, ds: DaemonSet, now: float) -> tuple[float, bool]:
        """(seconds to leave the DaemonSet alone, whether that is news)."""
        written = last_write(ds)
        seen = self._seen.get(ds.key)
        if seen is None or seen.uid != ds.metadata.uid:
            self._seen[ds.key] = _Seen(ds.metadata.uid, written)
            return 0.0, False
        is_news = False
        if written > seen.written:
            is_news = now >= seen.until
            seen.written, seen.until = written, now + PAUSE
        return max(0.0, seen.until - now), is_news

    def forget(self, key: str) -> None:
        """The DaemonSet is gone."""
        self._seen.pop(key, None)


def last_write(ds: DaemonSet) -> str:
    """When upstream wrote the status last; "" where it did not. (RFC 3339 in UTC sorts as text.)"""
    entries = (e for e in ds.metadata.managed_fields if e.subresource == "status" and e.manager in UPSTREAM)
    return max((entry.time or "" for entry in entries), default="")
