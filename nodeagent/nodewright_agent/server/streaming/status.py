"""How a command ended, as the error channel tells it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Status(msgspec.Struct, frozen=True):
    """A v1.Status: what protocol v4 and later send; earlier ones send its message, and nothing after a success."""

    body: dict[str, Any]

    @property
    def message(self) -> str:
        """The text for people; empty after a success."""
        return str(self.body.get("message", ""))

    def encode(self, *, structured: bool) -> bytes:
        """The bytes for the error channel."""
        if structured:
            return msgspec.json.encode(self.body)
        return self.message.encode()


SUCCESS = Status({"metadata": {}, "status": "Success"})


def exited(argv: Sequence[str], code: int) -> Status:
    """The command ended with this code; the words are kubelet's around containerd's."""
    if code == 0:
        return SUCCESS
    command = f"[{' '.join(argv)}]"
    return Status(
        {
            "metadata": {},
            "status": "Failure",
            "message": "command terminated with non-zero exit code: "
            f"error executing command {command}, exit code {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


def failed(text: str) -> Status:
    """It could not be run, or not be attached to."""
    return Status(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"Internal error occurred: {text}",
            "reason": "InternalError",
            "details": {"causes": [{"message": text}]},
            "code": 500,
        }
    )
