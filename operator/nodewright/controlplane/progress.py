"""How long-running work tells what it does: steps, with a changing status line and lasting notes.

The control plane only calls these; the command line draws them with rich, tests and scripts log or ignore them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

logger = logging.getLogger(__name__)


class Step(Protocol):
    """One running step."""

    def update(self, text: str) -> None:
        """Replace the status line, e.g. "downloading 30 of 105 MB"."""

    def note(self, text: str) -> None:
        """Say something that stays on the screen, e.g. why the next source is tried."""

    def result(self, text: str) -> None:
        """What the finished step's line says after its title."""


class Progress(Protocol):
    """Where steps are announced."""

    def step(self, title: str) -> AbstractContextManager[Step]:
        """Begin a step; it ends with the context, failed when that raises."""


class _LoggedStep:
    def __init__(self, title: str) -> None:
        self._title = title

    def update(self, text: str) -> None:
        logger.debug("%s: %s", self._title, text)

    def note(self, text: str) -> None:
        logger.info("%s: %s", self._title, text)

    def result(self, text: str) -> None:
        logger.info("%s: %s", self._title, text)


class LoggedProgress:
    """Progress as log lines: notes and results at INFO, status changes at DEBUG."""

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Log the step's beginning and hand out the step."""
        logger.debug("%s: started", title)
        yield _LoggedStep(title)
