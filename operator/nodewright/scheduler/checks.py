"""What a plugin gave back, looked at before it is used: a wrong answer fails that Pod's cycle and nothing else.

Each function returns the answer, or raises TypeError or ValueError saying what was expected.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .plugin import MAX_SCORE, Context, FilterResult, OnlyNodes, Reason, Rejected
from .state.arrays import BoolArray, IntArray


def preparation(answer: Any) -> Rejected | OnlyNodes | None:
    """What `prepare` returned."""
    if answer is None:
        return None
    if isinstance(answer, Rejected):
        if not isinstance(answer.reason, str):
            raise TypeError(f"returned Rejected with {_kind(answer.reason)}; expected text")
        return answer
    if not isinstance(answer, OnlyNodes):
        raise TypeError(f"returned {_kind(answer)}; expected Rejected, OnlyNodes or None")
    if not isinstance(answer.names, (set, frozenset)):
        raise TypeError(f"returned OnlyNodes with {_kind(answer.names)}; expected a set of names")
    return answer


def verdict(answer: Any, ctx: Context) -> FilterResult | None:
    """What `filter` returned; the reasons apart."""
    if answer is None:
        return None
    if not isinstance(answer, FilterResult):
        raise TypeError(f"returned {_kind(answer)}; expected FilterResult or None")
    _mask(answer.ok, ctx, "the mask")
    return answer


def reasons(result: FilterResult, ctx: Context) -> None:
    """The reasons of a filter that rejected nodes."""
    for reason in result.reasons:
        if not isinstance(reason, Reason) or not isinstance(reason.text, str):
            raise TypeError(f"gave {_kind(reason)} as a reason; expected text or Reason")
        if reason.where is not None:
            _mask(reason.where, ctx, "where of a reason")
        if not isinstance(reason.unresolvable, (bool, np.bool_)):
            _mask(reason.unresolvable, ctx, "unresolvable of a reason")


def sentences(answer: Any) -> list[str]:
    """What `detail` returned."""
    if not isinstance(answer, list) or not all(isinstance(sentence, str) for sentence in answer):
        raise TypeError(f"returned {_kind(answer)}; expected a list of texts")
    return answer


def scores(answer: Any, ctx: Context) -> IntArray:
    """What `score` or `normalize` returned, as 64-bit integers."""
    if not isinstance(answer, np.ndarray):
        raise TypeError(f"returned {_kind(answer)}; expected an array of integers")
    if answer.dtype.kind not in "iu":
        raise TypeError(f"the scores have dtype {answer.dtype}; expected integers")
    _shape(answer, ctx, "the answer")
    return answer.astype(np.int64, copy=False)


def final_scores(answer: Any, ctx: Context) -> IntArray:
    """Scores that go into the sum: 0..100 at every node that is still in question."""
    found = scores(answer, ctx)
    seen = found[ctx.feasible]
    if seen.size and (seen.min() < 0 or seen.max() > MAX_SCORE):
        invalid = int(seen.min()) if seen.min() < 0 else int(seen.max())
        raise ValueError(f"the score {invalid} is not in the range of 0 to {MAX_SCORE} after normalizing")
    return found


def _mask(value: Any, ctx: Context, what: str) -> BoolArray:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{what} is {_kind(value)}; expected an array of booleans")
    if value.dtype != np.bool_:
        raise TypeError(f"{what} has dtype {value.dtype}; expected booleans")
    _shape(value, ctx, what)
    return value


def _shape(value: Any, ctx: Context, what: str) -> None:
    if value.shape != (len(ctx.nodes),):
        raise ValueError(f"{what} has shape {value.shape} for {len(ctx.nodes)} nodes")


def _kind(value: object) -> str:
    return f"an object of type {type(value).__name__}"
