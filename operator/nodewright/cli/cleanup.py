"""`nodewright cleanup`: remove everything of Nodewright from this host."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli.output import FAILED, PRECONDITION, USAGE, CliError, stdout

if TYPE_CHECKING:
    from nodewright_agent.cleanup import Step
    from nodewright_agent.config import AgentConfig


def command(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings of the agent that was here; without: the defaults."),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for agent and proxy to end.")
    ] = 60.0,
    stay: Annotated[
        bool, typer.Option("--stay", help="When all is clean, sleep until stopped, so that a Pod stays Running.")
    ] = False,
) -> None:
    """Remove everything of Nodewright from this host: containers, cgroups, mounts, links, routes, rules, files.

    The agent and the proxy must have ended; it is waited for. Can be repeated: what is gone is fine. Exit codes: 1 when
    something could not be removed (named in the output), 3 when an agent or a proxy still runs, or without root.
    """
    import os

    from nodewright_agent import cleanup
    from nodewright_agent.runtime.errors import RuntimeUnavailable

    if os.geteuid() != 0:
        raise CliError("containers, mounts and rules are root's", "run it as root", PRECONDITION)
    settings = _settings(config)
    console = stdout()
    try:
        with cleanup.host_to_itself(settings, wait):
            failed = _run(cleanup.steps(settings))
    except cleanup.StillRunning as error:
        raise CliError(str(error), "stop it first, or wait longer with --wait", PRECONDITION) from None
    except RuntimeUnavailable as error:
        raise CliError(str(error), "run it from the agent's image, or correct the setting", USAGE) from None
    if failed:
        raise CliError(f"not everything could be removed: {', '.join(failed)}", "run it again", FAILED)
    console.print("nothing of Nodewright is left on this host")
    if stay:
        _stay()


def _settings(config: Path | None) -> AgentConfig:
    from nodewright_agent import config as settings

    if config is not None and not config.exists():
        stdout().print(f"{config} does not exist: taking the defaults")
        config = None
    try:
        # Which Node this was does not matter any more, and is not told (an agent's Pod has it from its environment).
        return settings.load(config, node_name="cleanup", host_node_name="", copy_topology_labels=False)
    except settings.ConfigError as error:
        raise CliError(str(error), "correct the setting that the message names", USAGE) from error


def _run(steps: list[Step]) -> list[str]:
    """Do all steps; the names of those that failed."""
    from nodewright_agent.proxy.backends.base import BackendError
    from nodewright_agent.runtime.errors import RuntimeUnavailable

    console, failed = stdout(), []
    for name, work in steps:
        try:
            removed = work()
        except (OSError, TimeoutError, RuntimeUnavailable, BackendError) as error:
            console.print(f"{name}: failed: {error}", markup=False)
            failed.append(name)
        else:
            console.print(f"{name}: {', '.join(removed) or 'nothing there'}", markup=False)
    return failed


def _stay() -> None:
    """Sleep until SIGTERM or SIGINT. As the first process of a container nothing ends us but what we wait for."""
    numbers = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    signal.sigwait(numbers)
