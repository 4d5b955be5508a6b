"""The taints of this project on nodes, and how a DaemonSet treats them. Pure.

Startup taints (`startup.nodewright.dev/NAMESPACE.NAME`) hold a new node's other work back until the DaemonSet of that
name has its pod ready there. The drain taint (`nodewright.dev/drain`) says that a node is being drained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from nodewright.kube.objects import Taint

STARTUP_PREFIX = "startup.nodewright.dev/"
DRAIN_TAINT = "nodewright.dev/drain"

_NAME_LIMIT = 63  # characters of a taint's key after the slash
_HASH = 8


def startup_name(namespace: str, name: str) -> str:
    """What stands after the slash in the key of a DaemonSet's startup taint; of long names a part and a hash."""
    full = f"{namespace}.{name}"
    if len(full) <= _NAME_LIMIT:
        return full
    kept = full[: _NAME_LIMIT - _HASH - 1].rstrip("-.")
    return f"{kept}-{hashlib.sha256(full.encode()).hexdigest()[:_HASH]}"


def startup_key(namespace: str, name: str) -> str:
    """The key of the startup taint of the DaemonSet with this name."""
    return STARTUP_PREFIX + startup_name(namespace, name)


def is_startup(taint: Taint) -> bool:
    """Whether it is a startup taint, whosoever."""
    return taint.key.startswith(STARTUP_PREFIX)


class OwnTaints(msgspec.Struct, frozen=True):
    """How a DaemonSet treats our own taints. The default is that of apps/v1: as any other taint.

    With `startup` (the DaemonSet has nodeReadiness) it looks past startup taints, save those in `waits_for`, which hold
    its pod back even where the template tolerates everything. With `drain` it looks past the drain taint. `known` are
    keys of startup taints that its pods tolerate on every node.
    """

    startup: bool = False
    waits_for: frozenset[str] = frozenset()
    drain: bool = False
    known: tuple[str, ...] = ()

    def ignores(self, taint: Taint) -> bool:
        """Whether the taint does not count for this DaemonSet."""
        if taint.key == DRAIN_TAINT:
            return self.drain
        return self.startup and is_startup(taint) and taint.key not in self.waits_for

    def tolerated(self, taints: Iterable[Taint]) -> list[str]:
        """Keys that a pod for a node with these taints tolerates on top of what the template says, sorted."""
        return sorted({*self.known, *(taint.key for taint in taints if self.ignores(taint))})

    @property
    def verdict_key(self) -> tuple[bool, frozenset[str], bool]:
        """What verdicts depend on."""
        return (self.startup, self.waits_for, self.drain)
