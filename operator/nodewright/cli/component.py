"""Options of a component: declared once, read in two ways.

Plainly, before anything is imported that only people need: typer and what it draws with would stay in memory for as
long as the component runs (9 MB), and take half of the time until it starts. And by typer, for whatever is not plain:
help, mistakes, short options put together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints


class Option:
    """How a field is given, as ``typer.Option`` has it; a switch with two sides is `--on/--off`."""

    def __init__(self, *names: str, help: str, metavar: str | None = None, count: bool = False) -> None:
        self.names, self.help, self.metavar, self.count = names, help, metavar, count


class Component(NamedTuple):
    """A verb that runs for long: a dataclass whose fields are annotated with an ``Option``, and what runs with it.

    Fields are `str`, `int`, `bool` or `Path`, or one of them or None, or `list[str] | None`. The docstring is the help.
    """

    options: type[Any]
    run: Callable[[Any], None]

    def plain(self, arguments: Sequence[str]) -> Any:
        """The options that `arguments` give; None where typer has to say what they mean, or what is wrong with them."""
        known = {name: field for field in self._declared() for names in field.option.names for name in names.split("/")}
        found: dict[str, Any] = {}
        words = iter(arguments)
        for word in words:
            name, assigned, text = word.partition("=")
            field = known.get(name)
            if field is None or (field.is_switch and assigned):
                return None
            if not field.is_switch and not assigned:
                text = next(words, "-")
                if text.startswith("-"):
                    return None
            try:
                found[field.name] = field.taken(name, text, found.get(field.name))
            except ValueError:
                return None
        return self.options(**found)

    def command(self) -> Callable[..., None]:
        """What typer makes a command of."""
        import typer

        def command(**given: Any) -> None:
            self.run(self.options(**given))

        parameters = []
        for name, hint, option, default in self._declared():
            said = typer.Option(default, *option.names, help=option.help, metavar=option.metavar, count=option.count)
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=said, annotation=hint))
        command.__doc__ = self.options.__doc__
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__dict__["__signature__"] = inspect.Signature(parameters)
        return command

    def _declared(self) -> list[_Field]:
        hints = get_type_hints(self.options, include_extras=True)
        declared = []
        for field in fields(self.options):
            hint, option = get_args(hints[field.name])
            declared.append(_Field(field.name, hint, option, field.default))
        return declared


class _Field(NamedTuple):
    name: str
    hint: Any
    option: Option
    default: Any

    @property
    def is_switch(self) -> bool:
        """Whether no value follows."""
        return self.hint is bool or self.option.count

    def taken(self, name: str, text: str, before: Any) -> Any:
        """The value after `name` was found with `text`. Raises ValueError."""
        if self.option.count:
            return (before or 0) + 1
        kind, *_ = get_args(self.hint) or (self.hint,)
        if get_origin(kind) is list:
            return [*(before or ()), text]
        if kind is bool:
            return not any(names.partition("/")[2] == name for names in self.option.names)
        if (kind is Path and not text) or (kind is int and not (text.isascii() and text.isdigit())):
            raise ValueError(text)
        return kind(text)
