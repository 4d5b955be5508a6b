"""Entry point of `nodewright`: finds the verb, imports only its module, and turns errors into two readable lines."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from nodewright.cli.verbs import VERBS

if TYPE_CHECKING:
    import typer

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
    from nodewright.cli import application

    return application.build(verb)


def run() -> NoReturn:
    """Run the program with the process's arguments and exit."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run the program with `arguments`; returns the exit code."""
    try:
        if not _runs_component(arguments):
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


def _runs_component(arguments: list[str]) -> bool:
    """Run the component that is asked for, in so plain words that typer is not needed; whether it was."""
    verb = next((verb for verb in VERBS if verb.attribute == "COMPONENT" and arguments[:1] == [verb.name]), None)
    if verb is None:
        return False
    component = verb.load()
    options = component.plain(arguments[1:])
    if options is None:
        return False
    component.run(options)
    return True


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


if __name__ == "__main__":
    run()
