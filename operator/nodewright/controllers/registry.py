"""The table of controllers: the one place to touch to add another one."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nodewright.framework.controller import Controller


class Entry(msgspec.Struct, frozen=True):
    """A controller: its name, where its class is (imported when wanted), and the upstream controller it replaces."""

    name: str
    module: str
    attribute: str
    replaces: str = ""

    def load(self) -> type[Controller]:
        """Import the class."""
        from importlib import import_module

        found: type[Controller] = getattr(import_module(self.module), self.attribute)
        return found


CONTROLLERS: tuple[Entry, ...] = (
    Entry("daemonset", "nodewright.controllers.daemonset.controller", "DaemonSetController"),
    Entry("configs", "nodewright.controllers.configs.controller", "ConfigController"),
)

# Names in kube-controller-manager's --controllers that an embedded cluster switches off, for ours do their work.
REPLACED: tuple[str, ...] = tuple(entry.replaces for entry in CONTROLLERS if entry.replaces)


def select(wanted: Iterable[str]) -> list[type[Controller]]:
    """Classes for names as in kube-controller-manager's --controllers: `*` all, `name`, `-name` not that one.

    Raises ValueError naming an unknown controller and the known ones.
    """
    names = [entry.name for entry in CONTROLLERS]
    chosen: set[str] = set()
    excluded: set[str] = set()
    for item in (part.strip() for part in wanted):
        if item == "*":
            chosen.update(names)
            continue
        name = item.removeprefix("-")
        if name not in names:
            raise ValueError(f"unknown controller {name!r}; known are {', '.join(names)}")
        (excluded if item.startswith("-") else chosen).add(name)
    return [entry.load() for entry in CONTROLLERS if entry.name in chosen - excluded]
