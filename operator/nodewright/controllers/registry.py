"""The table of controllers: the one place to touch to add another one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import msgspec

from nodewright.framework.controller import Controller


class Entry(msgspec.Struct, frozen=True):
    """A controller: its name, where its class is (imported when wanted), and the upstream controller it replaces.

    One with `take_over` (an API version) serves objects that upstream's controller serves otherwise, so it is off until
    it is told to take them over.
    """

    name: str
    module: str
    attribute: str
    replaces: str = ""
    take_over: str = ""

    def load(self) -> type[Controller]:
        """Import the class."""
        from importlib import import_module

        found: type[Controller] = getattr(import_module(self.module), self.attribute)
        return found


CONTROLLERS: tuple[Entry, ...] = (
    Entry("daemonset", "nodewright.controllers.daemonset.controller", "DaemonSetController"),
    Entry(
        "apps-daemonset",
        "nodewright.controllers.daemonset.apps",
        "AppsDaemonSetController",
        replaces="daemonset-controller",
        take_over="apps/v1",
    ),
    Entry("node-readiness", "nodewright.controllers.daemonset.nodetaints", "NodeTaintController"),
    Entry("configs", "nodewright.controllers.configs.controller", "ConfigController"),
)

# What can be taken over from upstream's controllers.
TAKE_OVERS: tuple[str, ...] = tuple(dict.fromkeys(entry.take_over for entry in CONTROLLERS if entry.take_over))


def replaced(take_over: Iterable[str]) -> tuple[str, ...]:
    """Names in kube-controller-manager's --controllers that must be off, for ours do their work."""
    taken = set(take_over)
    return tuple(e.replaces for e in CONTROLLERS if e.replaces and (not e.take_over or e.take_over in taken))


def select(wanted: Iterable[str], take_over: Iterable[str] = ()) -> list[type[Controller]]:
    """Classes for names as in kube-controller-manager's --controllers: `*` all, `name`, `-name` not that one.

    `take_over` switches on what is off without it. Raises ValueError for what is not known, with what is.
    """
    taken = set(take_over)
    for version in sorted(taken - set(TAKE_OVERS)):
        raise ValueError(f"{version!r} cannot be taken over; what can is {', '.join(TAKE_OVERS)}")
    names = {entry.name: entry for entry in CONTROLLERS}
    on = {entry.name for entry in CONTROLLERS if not entry.take_over or entry.take_over in taken}
    chosen: set[str] = set()
    excluded: set[str] = set()
    for item in (part.strip() for part in wanted):
        if item == "*":
            chosen |= on
            continue
        name = item.removeprefix("-")
        if name not in names:
            raise ValueError(f"unknown controller {name!r}; known are {', '.join(names)}")
        if item.startswith("-"):
            excluded.add(name)
        elif name not in on:
            raise ValueError(f"controller {name!r} needs --take-over {names[name].take_over}")
        else:
            chosen.add(name)
    return [entry.load() for entry in CONTROLLERS if entry.name in chosen - excluded]


def placed(classes: Iterable[type[Controller]], namespace: str) -> list[Callable[..., Controller]]:
    """The classes as factories; those that keep objects of their own get the operator's namespace."""
    return [partial(cast(Any, cls), namespace=namespace) if cls.keeps_objects else cls for cls in classes]
