"""The program as typer has it: one application, of which only the verb that is used is loaded."""

from __future__ import annotations

from typing import Any

import typer

from nodewright import __version__
from nodewright.cli.component import Component
from nodewright.cli.verbs import VERBS, Verb

# What comes after the verb's own options goes on untouched, --help included.
_PASS_ON: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}


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
        _attach(app, entry, entry.load() if entry.name == verb else _unloaded)
    return app


def _attach(app: typer.Typer, entry: Verb, target: Any) -> None:
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=entry.name, help=entry.help, rich_help_panel=entry.panel)
        return
    if isinstance(target, Component):
        target = target.command()
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
