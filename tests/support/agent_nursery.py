"""Agents that start at once: forked from a process that has imported everything. Run as a module, it is that process.

Each is an agent's process of its own, as `nodewright agent` makes it; what is saved is the second that Python needs to
read its modules. For tests that kill agents by the dozen.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from nodewright_agent import failpoints
from support.agent_node import AgentNode

ROOT = Path(__file__).parents[2]
_CALL = re.compile(r"\bfailpoint\(([^)]*)\)")
_KILLED = re.compile(rf"^{re.escape(failpoints.EXIT_MARK)}(\S+)$", re.MULTILINE)


def known_failpoints() -> set[str]:
    """Every failpoint of the agent, from its source; those of a purge are no part of an agent's life.

    Nor are those of the client of another runtime, which an agent has that runs no containers itself.
    """
    found = set()
    source = ROOT / "nodeagent" / "nodewright_agent"
    for path in source.rglob("*.py"):
        if path.name == "failpoints.py" or path.relative_to(source).parts[0] == "remote":
            continue
        for argument in _CALL.findall(path.read_text()):
            assert re.fullmatch(r'"[a-z.]+"', argument), f"{path}: failpoint({argument}): a plain name is needed"
            found.add(argument.strip('"'))
    return {name for name in found if not name.startswith("purge.")}


class Nursery:
    """The process that agents are forked from; one at a time."""

    def __enter__(self) -> Self:
        parts = (str(ROOT / part) for part in ("operator", "nodeagent", "tests"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}
        argv = [sys.executable, "-m", "support.agent_nursery"]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, bufsize=0, env=environment, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(20)
        self._server.stdout.close()

    def start(self, node: AgentNode, armed: set[str]) -> None:
        """Start the node's agent; it dies at the first of the ``armed`` failpoints that it comes to."""
        node.state.mkdir(parents=True, exist_ok=True)
        config = node.state / "agent.json"
        config.write_text(json.dumps(node.settings))
        points = ",".join(f"{name}=exit" for name in sorted(armed))
        assert self._server.stdin is not None
        order = {"config": str(config), "log": str(node.log), "failpoints": points}
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        node.process = Forked(self._server)  # type: ignore[assignment] - as much of a Popen as AgentNode needs


class Forked:
    """An agent of a nursery: what of ``Popen`` AgentNode uses."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        self._server = server
        self.pid = int(self._answer(None)["pid"])
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        if self.returncode is None:
            self.returncode = int(self._answer(timeout)["code"])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _answer(self, timeout: float | None) -> Any:
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("agent", timeout or 0)
        line = self._server.stdout.readline()
        return json.loads(line) if line else {"code": -signal.SIGKILL}  # somebody has ended the nursery itself


class MortalNode:
    """An agent that dies at each armed failpoint in turn, and is started again each time, until none is left."""

    def __init__(self, nursery: Nursery, node: AgentNode, armed: set[str]) -> None:
        self.nursery, self.node, self.armed = nursery, node, set(armed)
        self.deaths: list[str] = []
        nursery.start(node, self.armed)

    def died(self) -> bool:
        """Look after the agent once: tell whether it was killed, and at which point (the last of ``deaths``)."""
        process = self.node.process
        if process is None or process.poll() is None:
            return False
        assert process.returncode == failpoints.EXIT_CODE, self.node.text()[-4000:]
        name = _KILLED.findall(self.node.text())[-1]
        assert name in self.armed, f"{name} was not to be hit\n{self.node.text()[-4000:]}"
        self.armed.discard(name)
        self.deaths.append(name)
        self.node.process = None
        return True

    def arm_again(self, names: set[str]) -> None:
        """Have agents die at these once more: what is done again is another thing than what is done first."""
        if not self.died():
            self.node.stop(signal.SIGKILL)
        self.armed |= names
        self.revive()

    def revive(self) -> None:
        """Start the next agent."""
        self.nursery.start(self.node, self.armed)


def _serve() -> None:
    import nodewright.cli.main
    import nodewright_agent.builtin
    import nodewright_agent.main  # noqa: F401 - this is what is worth importing once

    for line in sys.stdin.buffer:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_agent(order, nodewright.cli.main.run)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _become_agent(order: dict[str, str], run: Any) -> None:
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        failpoints.configure(order["failpoints"])
        sys.argv = ["nodewright", "agent", f"--config={order['config']}"]
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
