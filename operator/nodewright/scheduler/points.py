"""Extension points: which plugin has which, and how a profile's plugin sets are merged.

The rules are upstream's (KubeSchedulerConfiguration v1: the defaults' mergePluginSet, and expandMultiPointPlugins): a
default that `multiPoint` enables again keeps its place; what a single point enables goes before what `multiPoint`
brings there if both name it, and after it else; what a single point disables, `multiPoint` does not bring there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from .plugin import Plugin

POINTS: Final = (
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
)
ALL: Final = "*"

# What upstream's weights are limited to (int32), and no sum of scores can overflow with.
MAX_WEIGHT: Final = 2**31 - 1

# The scheduler itself does the work of these, always.
BUILT_IN: Final[Mapping[str, str]] = {
    "SchedulingGates": "preEnqueue",
    "PrioritySort": "queueSort",
    "DefaultBinder": "bind",
}

# Upstream's plugins that do not exist here. A profile may switch them off.
ABSENT: Final = frozenset(
    {
        "NodeDeclaredFeatures",
        "GangScheduling",
        "TopologyPlacementGenerator",
        "PodGroupPodsCount",
        "EBSLimits",
        "GCEPDLimits",
        "AzureDiskLimits",
        "CinderLimits",
    }
)

# Points that upstream's plugins have beside those that follow from the class here. Naming one there is no mistake.
_ALSO: Final[Mapping[str, frozenset[str]]] = {
    "DefaultPreemption": frozenset({"preEnqueue"}),
    "DynamicResources": frozenset({"preEnqueue", "filter", "score", "reserve", "preBind"}),
    "VolumeBinding": frozenset({"preFilter", "preScore", "score", "reserve", "preBind"}),
}


class PluginRef(msgspec.Struct, forbid_unknown_fields=True):
    """A plugin by name; weight 0 means the plugin's own, which is 1 for upstream's plugins."""

    name: str
    weight: int = 0


class PluginSet(msgspec.Struct, forbid_unknown_fields=True):
    """Plugins switched on and off at one extension point."""

    enabled: list[PluginRef] = []
    disabled: list[PluginRef] = []


class PointError(ValueError):
    """A plugin set that cannot be used. The message names the field."""


def points_of(name: str, cls: type[Plugin] | None) -> frozenset[str]:
    """The extension points at which a profile may name a plugin. `cls` is None for what the scheduler itself does."""
    return frozenset({BUILT_IN[name]}) if cls is None else own_points(cls) | _ALSO.get(name, frozenset())


def own_points(cls: type[Plugin]) -> frozenset[str]:
    """The extension points that follow from what the class overrides.

    Our `prepare` is upstream's PreFilter and PreScore in one, so whoever filters is at home at preFilter, and whoever
    scores at preScore.
    """
    found: set[str] = set()
    if cls.extends("filter") or cls.extends("prepare"):
        found.add("preFilter")
    if cls.extends("filter"):
        found.add("filter")
    if cls.extends("score"):
        found |= {"preScore", "score"}
    if cls.extends("reserve") or cls.extends("unreserve"):
        found.add("reserve")
    if cls.extends("pre_bind"):
        found.add("preBind")
    if getattr(cls, "is_post_filter", False):
        found.add("postFilter")
    return frozenset(found)


def check_set(changes: PluginSet, field: str, known: Callable[[str], bool]) -> None:
    """Raise PointError for names that stand there twice or that nobody has, and for impossible weights."""
    seen: set[str] = set()
    for index, ref in enumerate(changes.enabled):
        where = f"{field}.enabled[{index}]"
        if ref.name == ALL:
            raise PointError(f'{where}.name: Invalid value: "*": only `disabled` can mean all plugins')
        if ref.name in seen:
            raise PointError(f'{where}.name: Duplicate value: "{ref.name}"')
        if not 0 <= ref.weight <= MAX_WEIGHT:
            raise PointError(f"{where}.weight: Invalid value: {ref.weight}: not in valid range [0, {MAX_WEIGHT}]")
        if ref.name in ABSENT and not known(ref.name):
            raise PointError(f"{where}.name: this scheduler has no plugin {ref.name!r}; it can only be disabled")
        seen.add(ref.name)
    for index, ref in enumerate(changes.disabled):
        if ref.name != ALL and ref.name not in ABSENT and not known(ref.name):
            raise PointError(f"{field}.disabled[{index}].name: no scheduler plugin is named {ref.name!r}")


def with_defaults(defaults: Mapping[str, int], changes: PluginSet) -> dict[str, int]:
    """What `multiPoint` amounts to: names in order, with the weights given (0: none)."""
    enabled = {ref.name: ref.weight for ref in changes.enabled}
    disabled = {ref.name for ref in changes.disabled}
    kept = {} if ALL in disabled else {name: weight for name, weight in defaults.items() if name not in disabled}
    merged = {name: enabled.pop(name, weight) for name, weight in kept.items()}
    return {**merged, **enabled}


def expanded(point: str, multi: Collection[str], changes: PluginSet, has: Mapping[str, frozenset[str]]) -> list[str]:
    """The names that run at a point, in order. Raises PointError where a plugin does not have the point."""
    enabled = [ref.name for ref in changes.enabled]
    for index, name in enumerate(enabled):
        if point not in has[name]:
            raise PointError(f"plugins.{point}.enabled[{index}].name: {_refusal(name, point, has[name])}")
    disabled = {ref.name for ref in changes.disabled}
    if ALL in disabled:
        return enabled
    brought = [name for name in multi if point in has[name] and name not in disabled]
    before = [name for name in enabled if name in brought]
    between = [name for name in brought if name not in enabled]
    after = [name for name in enabled if name not in brought]
    return [*before, *between, *after]


def check_built_in(active: Mapping[str, Sequence[str]]) -> None:
    """Raise PointError unless the queue's order and the binding are there, as upstream asks of every profile."""
    for name, point in BUILT_IN.items():
        if point != "preEnqueue" and name not in active[point]:
            text = f"{name} is switched off, but a profile needs one {point} plugin and this scheduler has no other"
            raise PointError(f"plugins.{point}: {text}")


def _refusal(name: str, point: str, has: frozenset[str]) -> str:
    text = f"plugin {name!r} does not extend {point[0].upper()}{point[1:]} plugin"
    for own, where in BUILT_IN.items():
        if where == point:
            return f"{text}: this scheduler does the work of {own} itself, and no plugin can take its place"
    if point in ("permit", "postBind"):
        return f"{text}: there is no such step in this scheduler"
    return f"{text}; it extends {', '.join(p for p in POINTS if p in has) or 'none'}"
