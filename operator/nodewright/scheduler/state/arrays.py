"""Array types, and growing by doubling."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.int32]
RowArray = npt.NDArray[np.intp]

T = TypeVar("T", bound=np.generic)


def grown(array: npt.NDArray[T], capacity: int, fill: int = 0) -> npt.NDArray[T]:
    """A copy of `array` whose last axis holds `capacity` entries, the new ones filled with `fill`."""
    shape = (*array.shape[:-1], capacity)
    bigger = np.full(shape, fill, dtype=array.dtype)
    bigger[..., : array.shape[-1]] = array
    return bigger


def doubled(capacity: int, needed: int) -> int:
    """The smallest doubling of `capacity` that holds `needed`."""
    while capacity < needed:
        capacity *= 2
    return capacity
