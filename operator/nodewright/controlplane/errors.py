"""Errors of the control plane, each with the hint that gets the user on and the exit code of the command."""

from __future__ import annotations

FAILED = 1
USAGE = 2
PRECONDITION = 3
TIMED_OUT = 4


class ControlPlaneError(Exception):
    """Something could not be done. `hint` says what to do about it; `exit_code` is the command's."""

    exit_code = FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ControlPlaneError):
    """The user asked for something that cannot be: a bad name, a count out of range."""

    exit_code = USAGE


class PreconditionError(ControlPlaneError):
    """This machine lacks something: privileges, binaries, a free port, a free address range."""

    exit_code = PRECONDITION


class StartTimeout(ControlPlaneError):
    """A process did not become ready in time."""

    exit_code = TIMED_OUT
