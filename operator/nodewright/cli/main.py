"""Entry point of `nodewright`: finds the verb, imports only its module, and turns errors into two readable lines."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any, NamedTuple, NoReturn

import typer

from nodewright import __version__


class Verb(NamedTuple):
    """One verb: where it lives and what the overview says about it.

    `attribute` is a function (one command) or a typer.Typer (a group of commands).
    """

    name: str
    module: str
    attribute: str
    help: str
    panel: str
    passes_arguments: bool = False


_CLUSTER, _USE, _INSPECT, _COMPONENTS = "Cluster", "Use it", "Understand it", "Components (run in the foreground)"
_REMOVE = "Take it away (what the Helm chart runs when it is uninstalled)"

VERBS = (
    Verb("up", "up", "command", "Start or resume a cluster on this machine.", _CLUSTER),
    Verb("down", "down", "command", "Stop a cluster; with --purge remove everything it made.", _CLUSTER),
    Verb("status", "status", "command", "Show what runs and whether it is healthy.", _CLUSTER),
    Verb("doctor", "doctor", "command", "Check what this machine has and lacks, with hints.", _CLUSTER),
    Verb("assets", "assets", "command", "Get the control plane's binaries before they are needed.", _CLUSTER),
    Verb("kubeconfig", "kubeconfig", "command", "Print the cluster's kubeconfig or its path.", _USE),
    Verb("kubectl", "kubectl", "command", "Run kubectl against the cluster.", _USE, passes_arguments=True),
    Verb("image", "image", "app", "Load, pull, list and remove images of the local store.", _USE),
    Verb("rollout", "rollout", "app", "Follow, undo, pause, resume, restart rollouts of DaemonSets.", _USE),
    Verb("drain", "drain", "command", "Empty a node in order, before it is taken out of service.", _USE),
    Verb("uncordon", "drain", "uncordon_command", "Take a node back into service.", _USE),
    Verb("explain", "explain", "app", "Say why a Pod is where it is, or a DaemonSet's Pods are.", _INSPECT),
    Verb("simulate", "simulate", "command", "Say where Pods would go that do not exist yet.", _INSPECT),
    Verb("trace", "trace", "command", "Follow an object through the system, step by step with times.", _INSPECT),
    Verb("selftest", "selftest", "command", "Check in a Pod that Pods, DaemonSets and Services work.", _INSPECT),
    Verb("operator", "operator", "command", "The controllers.", _COMPONENTS),
    Verb("scheduler", "scheduler", "command", "The scheduler.", _COMPONENTS),
    Verb("agent", "agent", "command", "The node agent: makes this host a Node.", _COMPONENTS),
    Verb("proxy", "proxy", "command", "The service proxy alone.", _COMPONENTS),
    Verb("cri", "cri", "command", "The runtime alone, behind a CRI v1 socket.", _COMPONENTS),
    Verb("cleanup", "cleanup", "command", "Remove everything of Nodewright from this host.", _REMOVE),
    Verb("uninstall", "uninstall", "command", "Take Nodewright's nodes out of a cluster.", _REMOVE),
)

# What comes after the verb's own options goes on untouched, --help included.
_PASS_ON: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}
# What a container image leaves out, and whose half it then holds.
_HALVES = {
    "nodewright_agent": "the operator's half",
    "nodewright.controllers": "the agent's half",
    "nodewright.scheduler": "the agent's half",
    "nodewright.framework": "the agent's half",
}
_OTHER_HALF = "run this verb in the other image, or where all of Nodewright is installed (make setup)"
_COMPLETION_VARIABLES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")


def build(verb: str | None) -> typer.Typer:
    """The application with `verb` loaded; the others are only named, so that they cost no import."""
    app = typer.Typer(
        name="nodewright",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    for entry in VERBS:
        _attach(app, entry, _load(entry) if entry.name == verb else _unloaded)
    return app


def run() -> NoReturn:
    """Run the program with the process's arguments and exit."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run the program with `arguments`; returns the exit code."""
    try:
        build(_verb_of(arguments))(args=arguments, prog_name="nodewright")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BrokenPipeError:
        # the reader of a pipe has seen enough; keep the interpreter from complaining while it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        return _report(error)
    return 0


def _report(error: Exception) -> int:
    """Print an expected error without a traceback and return its exit code; raise any other."""
    from nodewright.cli.output import FAILED, PRECONDITION, CliError, print_error

    if isinstance(error, CliError):
        print_error(error.message, error.hint)
        return error.exit_code
    # Only somebody who has imported nodewright.controlplane can raise its errors, and images do without it.
    control_plane = sys.modules.get("nodewright.controlplane.errors")
    if control_plane is not None and isinstance(error, control_plane.ControlPlaneError):
        print_error(error.message, error.hint)
        return int(error.exit_code)
    if isinstance(error, ModuleNotFoundError) and (held := _held(error.name or "")):
        print_error(f"this image holds only {held} of Nodewright; there is no {error.name} in it", _OTHER_HALF)
        return PRECONDITION
    if isinstance(error, PermissionError):
        print_error(str(error), "run the command as root, or as the user who started the cluster")
        return PRECONDITION
    if isinstance(error, OSError):
        print_error(str(error))
        return FAILED
    # Only somebody who has imported nodewright.kube can raise its errors; the other paths stay light.
    kube_errors = sys.modules.get("nodewright.kube.errors")
    if kube_errors is not None and isinstance(error, kube_errors.ConfigError):
        print_error(str(error), "give --kubeconfig FILE or set KUBECONFIG")
        return PRECONDITION
    if kube_errors is not None and isinstance(error, kube_errors.ApiError):
        print_error(str(error))
        return FAILED
    raise error


def _held(missing: str) -> str | None:
    """What this installation holds when `missing` is a part that an image leaves out; None when it is none."""
    if not missing.startswith(("nodewright.", "nodewright_agent")):
        return None
    return next((half for part, half in _HALVES.items() if importlib.util.find_spec(part) is None), None)


def _verb_of(arguments: list[str]) -> str | None:
    """The first word that is no option; shell completion gives the words by environment."""
    words = list(arguments)
    for variable in _COMPLETION_VARIABLES:
        words += os.environ.get(variable, "").split()[1:]
    return next((word for word in words if not word.startswith("-")), None)


def _load(entry: Verb) -> Any:
    return getattr(importlib.import_module(f"nodewright.cli.{entry.module}"), entry.attribute)


def _attach(app: typer.Typer, entry: Verb, target: Any) -> None:
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=entry.name, help=entry.help, rich_help_panel=entry.panel)
        return
    settings = _PASS_ON if entry.passes_arguments else None
    help_text = entry.help if target is _unloaded else None  # a loaded verb speaks for itself
    app.command(
        entry.name, help=help_text, short_help=entry.help, rich_help_panel=entry.panel, context_settings=settings
    )(target)


def _unloaded() -> None:
    """Stand in for a verb that this invocation does not use."""
    raise AssertionError("a verb that was not loaded cannot be run")


def _version(value: bool) -> None:
    if value:
        print(f"nodewright {__version__}")
        raise typer.Exit


def _root(
    _show_version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Kubernetes on real hosts, in Python.

    `nodewright up` starts a cluster, `nodewright kubectl get nodes` talks to it, `nodewright down` stops it.
    """


if __name__ == "__main__":
    run()
