"""The `nodewright` command as its users run it, from tests that have an event loop."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path


class Cli:
    """Runs commands against one API server; those that were begun and not ended are killed by `stop`."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._begun: list[Process] = []

    async def begin(self, *words: str) -> Process:
        """Start a command, whose output can be read while it runs."""
        env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
        argv = [sys.executable, "-m", "nodewright.cli.main", *words, f"--kubeconfig={self.kubeconfig}"]
        process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE, env=env)
        self._begun.append(process)
        return process

    async def run(self, *words: str, code: int = 0) -> str:
        """Standard output of a command that ends with this exit code; of one that fails, its standard error."""
        process = await self.begin(*words)
        out, err = await process.communicate()
        said = (out if code == 0 else err).decode()
        assert process.returncode == code, f"{' '.join(words)}: {process.returncode}\n{out.decode()}\n{err.decode()}"
        return said

    async def stop(self) -> None:
        """Nothing is left running."""
        for process in self._begun:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def line_with(process: Process, text: str) -> str:
    """Read a running command's output up to the first line that has this text."""
    seen = []
    while line := (await process.stdout.readline()).decode():
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"{text!r} was not said: {''.join(seen)}\n{(await process.stderr.read()).decode()}")
