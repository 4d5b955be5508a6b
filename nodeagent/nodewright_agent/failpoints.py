"""Named points where a test can stop, fail or delay the agent; nothing but one falsy test when switched off.

``NODEWRIGHT_FAILPOINTS="name=action[,name=action...]"`` with the actions

- ``exit``: end the process at once as ``kill -9`` would (no clean-up, no buffers written); stderr tells where,
- ``error`` or ``error:TEXT``: raise ``FailpointError``,
- ``delay:SECONDS``: block this thread for so long,
- ``stop``: SIGSTOP to oneself, for tests that look at the host while the agent stands still.

A count before the action (``name=3*exit``) lets the first two passes go by. Names are listed where they are hit.
"""

from __future__ import annotations

import os
import signal
import time

EXIT_CODE = 86
EXIT_MARK = "killed at failpoint "


class FailpointError(RuntimeError):
    """What an ``error`` action raises."""


class _Action:
    def __init__(self, text: str) -> None:
        count, star, rest = text.partition("*")
        self.passes = int(count) - 1 if star else 0
        kind, _, self.argument = (rest if star else text).partition(":")
        if kind not in ("exit", "error", "delay", "stop"):
            raise ValueError(f"failpoint action {text!r}: expected exit, error, delay or stop")
        if kind == "delay":
            float(self.argument)
        self.kind = kind

    def run(self, name: str) -> None:
        if self.passes > 0:
            self.passes -= 1
            return
        if self.kind == "exit":
            os.write(2, f"\n{EXIT_MARK}{name}\n".encode())
            os._exit(EXIT_CODE)
        if self.kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.kind == "delay":
            time.sleep(float(self.argument))
        else:
            raise FailpointError(self.argument or f"failpoint {name}")


def parse(text: str) -> dict[str, _Action]:
    """Read the environment variable's form; raises ValueError with the faulty part."""
    actions = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, action = part.partition("=")
        if not name or not equals:
            raise ValueError(f"failpoint {part!r}: expected name=action")
        actions[name] = _Action(action)
    return actions


_active = parse(os.environ.get("NODEWRIGHT_FAILPOINTS", ""))


def configure(text: str) -> None:
    """Replace the active failpoints (tests within one process)."""
    global _active
    _active = parse(text)


def failpoint(name: str) -> None:
    """Do what the environment asks for at ``name``, usually nothing."""
    if _active and (action := _active.get(name)) is not None:
        action.run(name)
