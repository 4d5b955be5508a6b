"""kubectl's exec, attach and port-forward as a person uses them: with input, with a terminal, ended in the middle."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from support.pod_lab import PodLab


class Kubectl:
    """kubectl for one namespace, over WebSockets or SPDY."""

    def __init__(self, binary: Path, lab: PodLab, *, websockets: bool = True) -> None:
        """`binary` talks to the cluster of `lab`."""
        self.lab = lab
        self._base = [str(binary), f"--kubeconfig={lab.cluster.kubeconfig}", "-n", lab.namespace]
        word = str(websockets).lower()
        names = ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS")
        self._environment = {**os.environ, **dict.fromkeys(names, word)}

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """One command to its end."""
        return subprocess.run(
            [*self._base, *words], input=stdin, capture_output=True, env=self._environment, timeout=60, check=False
        )

    def output(self, *words: str, stdin: bytes = b"") -> bytes:
        """What one command writes; it must go well."""
        found = self.run(*words, stdin=stdin)
        assert found.returncode == 0, found.stderr.decode()
        return found.stdout

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that goes on, with pipes."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*self._base, *words], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=self._environment
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def forwarded(self, what: str, port: int) -> Iterator[int]:
        """The local port that leads to a Pod's one."""
        with self.started("port-forward", what, f":{port}") as process:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
            assert found, line + process.stdout.read().decode()
            yield int(found[1])

    @contextlib.contextmanager
    def terminal(self, *words: str, size: tuple[int, int] = (100, 30)) -> Iterator["Terminal"]:
        """A command with a terminal of its own."""
        ours, theirs = pty.openpty()
        made = Terminal(ours)
        made.resize(*size)
        process = subprocess.Popen(
            # setsid: a new session's first terminal is its controlling one, whose size changes are told by signals
            ["setsid", "-c", *self._base, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self._environment,
        )
        os.close(theirs)
        made.process = process
        try:
            yield made
        finally:
            process.kill()
            process.wait()
            os.close(ours)


class Terminal:
    """The person's side of a terminal."""

    def __init__(self, fd: int) -> None:
        self._fd, self.text = fd, ""
        self.process: subprocess.Popen[bytes] | None = None

    def resize(self, width: int, height: int) -> None:
        """Change the window."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._fd, text.encode())

    def expect(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Wait until the screen shows it; what was before is forgotten."""
        deadline = time.monotonic() + timeout
        while (found := re.search(pattern, self.text)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text!r}"
            if not select.select([self._fd], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            assert data, f"no {pattern!r} before the end of {self.text!r}"
            self.text += data.decode(errors="replace")
        self.text = self.text[found.end() :]
        return found

    def code(self) -> int:
        """Wait for the command's end; its exit code."""
        assert self.process is not None
        return self.process.wait(30)


def through(port: int, data: bytes) -> bytes:
    """What comes back of data from what listens at a port of this machine, sent and read at the same time."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            os._exit(0)
        got = b""
        try:
            while piece := connection.recv(1 << 20):
                got += piece
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return got
