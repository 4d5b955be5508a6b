"""What stops a run, told in two lines."""

from __future__ import annotations


class ConformanceError(Exception):
    """A run that cannot go on: `str()` says why, `hint` what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class Missing(ConformanceError):
    """This machine lacks something that the run needs."""
