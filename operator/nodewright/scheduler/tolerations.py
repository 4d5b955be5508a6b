"""Tolerations against taints, by the rules of the API (`Toleration.ToleratesTaint`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .objects import Taint, Toleration
from .state.arrays import BoolArray

KEEPS_AWAY = ("NoSchedule", "NoExecute")


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether one toleration covers one taint. An empty key with operator Exists covers every taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    # Gt and Lt stand behind a feature gate that is off by default: they tolerate nothing.
    return toleration.operator in ("", "Equal") and toleration.value == taint.value


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether any of the tolerations covers the taint."""
    return any(tolerates(toleration, taint) for toleration in tolerations)


def untolerated_sets(sets: Sequence[tuple[Taint, ...]], tolerations: Sequence[Toleration]) -> BoolArray:
    """Which sets of taints have one that keeps the Pod away (NoSchedule or NoExecute) and is not tolerated."""
    return np.array(
        [any(t.effect in KEEPS_AWAY and not tolerated(t, tolerations) for t in taints) for taints in sets],
        dtype=np.bool_,
    )
