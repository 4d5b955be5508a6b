"""Running e2e.test: its command line, and the process with what it leaves behind when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

JUNIT = "junit_01.xml"
# How long an interrupted suite may take for its own clean-up, seconds.
_GRACE = 60


@dataclass(frozen=True)
class Selection:
    """Which tests to run: regular expressions over their names; `procs` at a time."""

    focus: tuple[str, ...] = (r"\[Conformance\]",)
    skip: tuple[str, ...] = ()
    procs: int = 2
    flake_attempts: int = 1
    extra: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Programs:
    """The programs of a run."""

    ginkgo: Path
    e2e: Path
    kubectl: Path


def command(programs: Programs, selection: Selection, kubeconfig: Path, out: Path, nodes: int) -> list[str]:
    """ginkgo's command line. Tests that are Serial run after the others, one at a time: ginkgo sees to it."""
    argv = [str(programs.ginkgo), f"--procs={selection.procs}", "--no-color", "--timeout=24h"]
    argv += [f"--focus={pattern}" for pattern in selection.focus]
    argv += [f"--skip={pattern}" for pattern in selection.skip]
    if selection.flake_attempts > 1:
        argv.append(f"--flake-attempts={selection.flake_attempts}")
    argv += selection.extra
    return [
        *argv,
        str(programs.e2e),
        "--",
        f"--kubeconfig={kubeconfig}",
        f"--kubectl-path={programs.kubectl}",
        "--provider=skeleton",
        f"--report-dir={out}",
        f"--num-nodes={nodes}",
        "--allowed-not-ready-nodes=0",
        "--dns-domain=cluster.local",
        "--disable-log-dump=true",
        "--dump-logs-on-failure=false",
        "--prepull-images=false",
    ]


def run(argv: list[str], log: Path) -> int:
    """Run the suite with its output in `log`; its exit code, 1 also when tests failed.

    It gets a process group of its own. On KeyboardInterrupt it is interrupted too, which makes it clean up and write
    its report, and the interrupt goes on afterwards.
    """
    environ = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environ, process_group=0
        )
        try:
            return process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                pass
            raise
        finally:
            _end_group(process.pid)
            process.wait()


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of it has ended by itself
