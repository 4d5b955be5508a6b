"""The pipes of a monitor: all of them, or none."""

from __future__ import annotations

import os

import pytest

from nodewright_agent.runtime import conmon


def test_pipes_that_cannot_all_be_made(monkeypatch):
    made: list[tuple[int, int]] = []
    pipe = os.pipe

    def limited() -> tuple[int, int]:
        if len(made) == 2:
            raise OSError(24, "Too many open files")
        made.append(pipe())
        return made[-1]

    monkeypatch.setattr(os, "pipe", limited)
    with pytest.raises(OSError, match="Too many open files"):
        conmon.pipes(3)
    for fd in (end for ends in made for end in ends):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
