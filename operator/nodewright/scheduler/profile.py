"""A profile: which plugins decide for the Pods of one schedulerName, in which order and with which weights.

The configuration has KubeSchedulerConfiguration's field names, defaults and merge rules (see `points`).
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import msgspec

from . import arguments, points
from .events import Event
from .metrics import Asked
from .plugin import Plugin, PluginError, Scope
from .pods import PodInfo, PodPart
from .points import PluginRef, PluginSet
from .registry import DEFAULT_PLUGINS, Registry

DEFAULT_SCHEDULER_NAME = "nodewright"

# Upstream's order. The first two and the last have no class: the scheduler itself does their work.
_DEFAULTS = {
    "SchedulingGates": 0,
    "PrioritySort": 0,
    **{cls.name: cls.weight for cls in DEFAULT_PLUGINS},
    "DefaultBinder": 0,
}


class ProfileError(ValueError):
    """A profile that cannot be used. The message names the field."""


class Plugins(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Plugin sets per extension point; `multiPoint` means all points that a plugin has."""

    multi_point: PluginSet = msgspec.field(default_factory=PluginSet)
    pre_enqueue: PluginSet = msgspec.field(default_factory=PluginSet)
    queue_sort: PluginSet = msgspec.field(default_factory=PluginSet)
    pre_filter: PluginSet = msgspec.field(default_factory=PluginSet)
    filter: PluginSet = msgspec.field(default_factory=PluginSet)
    post_filter: PluginSet = msgspec.field(default_factory=PluginSet)
    pre_score: PluginSet = msgspec.field(default_factory=PluginSet)
    score: PluginSet = msgspec.field(default_factory=PluginSet)
    reserve: PluginSet = msgspec.field(default_factory=PluginSet)
    permit: PluginSet = msgspec.field(default_factory=PluginSet)
    pre_bind: PluginSet = msgspec.field(default_factory=PluginSet)
    bind: PluginSet = msgspec.field(default_factory=PluginSet)
    post_bind: PluginSet = msgspec.field(default_factory=PluginSet)

    def sets(self) -> dict[str, PluginSet]:
        """The sets by the name that the extension point has in a configuration, `multiPoint` first."""
        return {field.encode_name: getattr(self, field.name) for field in msgspec.structs.fields(type(self))}


class PluginConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of a plugin."""

    name: str
    args: msgspec.Raw = msgspec.Raw(b"{}")


class ProfileConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A KubeSchedulerProfile. percentageOfNodesToScore is accepted and has no effect: every node is looked at."""

    scheduler_name: str = DEFAULT_SCHEDULER_NAME
    percentage_of_nodes_to_score: int | None = None
    plugins: Plugins = msgspec.field(default_factory=Plugins)
    plugin_config: list[PluginConfig] = []


class Scorer(msgspec.Struct, frozen=True):
    """A plugin that scores, and the weight of its score in the sum."""

    plugin: Plugin
    weight: int
    normalizes: bool


class Profile:
    """Plugin instances in order. Raises ProfileError for a configuration that cannot be used.

    `plugins` are all that the configuration names, `preparers` those with a `prepare` that something here needs, and
    `pre_filters` the names of those whose `prepare` may reject: the others are asked for the data that their `filter`
    or `score` reads. `post_filter` is what is tried for Pods that fit nowhere, None for nothing.
    """

    def __init__(self, config: ProfileConfig | None = None, registry: Registry | None = None) -> None:
        config = config or ProfileConfig()
        self.scheduler_name = config.scheduler_name
        names = _Names(config, registry or Registry())
        self.plugins = plugins = {name: names.instance(name) for name in names.weights if name not in points.BUILT_IN}
        for name, plugin in plugins.items():
            plugin.asked = Asked(name, self.scheduler_name, _asked_at(plugin))
        own = {name: points.own_points(type(plugin)) for name, plugin in plugins.items()}
        at = {point: [plugins[n] for n in names.at[point] if point in own.get(n, ())] for point in points.POINTS}
        self.filters = at["filter"]
        self.scorers = [Scorer(p, names.score_weight(p), p.extends("normalize")) for p in at["score"]]
        self.reservers = at["reserve"]
        self.pre_binders = at["preBind"]
        self.pre_filters = frozenset(names.at["preFilter"])
        self.post_filter: Plugin | None = at["postFilter"][0] if at["postFilter"] else None
        answering = [p for point in ("preFilter", "filter", "score") for p in at[point]]
        self.preparers = [p for p in dict.fromkeys(answering) if p.extends("prepare")]
        self._sharers = [p for p in dict.fromkeys(answering) if p.extends("shares")]
        # A plugin that is asked nothing does not keep answers of others from being shared.
        self.reads: PodPart = functools.reduce(operator.or_, (p.reads for p in answering), PodPart.SPEC)
        self.has_cluster_scope = any(p.scope == Scope.CLUSTER for p in answering)

    def shares(self, pod: PodInfo) -> bool:
        """Whether every plugin lets its answers for this Pod be kept for others of the same signature.

        Raises PluginError.
        """
        for plugin in self._sharers:
            try:
                if not plugin.shares(pod):
                    return False
            except Exception as error:  # a plugin's fault stays its Pod's problem, whatever it raises
                raise PluginError(plugin.name, "shares", error) from error
        return True

    def wakers(self, names: set[str]) -> Event:
        """The events after which a Pod rejected by these plugins is worth another try."""
        return functools.reduce(operator.or_, (self.plugins[n].events for n in names if n in self.plugins), Event.NONE)


def _asked_at(plugin: Plugin) -> list[str]:
    methods = {"prepare": "PreFilter", "filter": "Filter", "score": "Score"}
    return [point for method, point in methods.items() if plugin.extends(method)]


class _Names:
    """The configuration in terms of names: who runs at which point, with which weight and arguments."""

    def __init__(self, config: ProfileConfig, registry: Registry) -> None:
        self._registry = registry
        sets = config.plugins.sets()
        try:
            for point, changes in sets.items():
                points.check_set(changes, f"plugins.{point}", self._is_known)
            multi = points.with_defaults(_DEFAULTS, sets.pop("multiPoint"))
            named = {**multi, **{ref.name: 0 for changes in sets.values() for ref in changes.enabled}}
            has = {name: points.points_of(name, self._class(name)) for name in named}
            self.at = {point: points.expanded(point, multi, changes, has) for point, changes in sets.items()}
            points.check_built_in(self.at)
        except points.PointError as error:
            raise ProfileError(str(error)) from error
        if len(found := self.at["postFilter"]) > 1:
            raise ProfileError(f"plugins.postFilter: only one plugin can run there, not {' and '.join(found)}")
        self.weights = {**named, **multi, **{ref.name: ref.weight for ref in sets["score"].enabled}}
        self._args = self._checked_args(config)

    def score_weight(self, plugin: Plugin) -> int:
        """The weight of a score. Where none is given: 1 for upstream's plugins, the class's for others."""
        return self.weights[plugin.name] or (1 if plugin.name in _DEFAULTS else plugin.weight)

    def instance(self, name: str) -> Plugin:
        """The plugin, made with its arguments. Raises ProfileError, whatever the plugin raises."""
        cls = self._class(name)
        assert cls is not None
        return _made(cls, self._args.get(name))

    def _is_known(self, name: str) -> bool:
        return name in points.BUILT_IN or self._registry.knows(name)

    def _class(self, name: str) -> type[Plugin] | None:
        if name in points.BUILT_IN:
            return None
        try:
            return self._registry.find(name)
        except ValueError as error:
            raise ProfileError(f"plugins: {error}") from error

    def _checked_args(self, config: ProfileConfig) -> dict[str, msgspec.Raw]:
        found: dict[str, msgspec.Raw] = {}
        for index, entry in enumerate(config.plugin_config):
            name = entry.name
            if name in found:
                raise ProfileError(f'pluginConfig[{index}].name: Duplicate value: "{name}"')
            if name in points.BUILT_IN:
                raise ProfileError(f"pluginConfig[{name}]: plugin {name!r} takes no arguments")
            if name not in self.weights:
                # Arguments of a default that this profile switches off are left lying there, and must still be right.
                if name not in _DEFAULTS:
                    raise ProfileError(f"pluginConfig[{index}].name: plugin {name!r} is not enabled")
                _made(self._registry.find(name), entry.args)
            found[name] = entry.args
        return found


def _made(cls: type[Plugin], raw: msgspec.Raw | None) -> Plugin:
    name = cls.name
    try:
        if raw is None:
            return cls()
        if cls.args_type is None:
            raise ProfileError(f"pluginConfig[{name}]: plugin {name!r} takes no arguments")
        return cls(arguments.decode(raw, cls.args_type))
    except ProfileError:
        raise
    except ValueError as error:
        raise ProfileError(f"pluginConfig[{name}].args: {error}") from error
    except Exception as error:  # whatever the class of another package raises
        raise ProfileError(f"plugins: plugin {name!r} cannot be made: {type(error).__name__}: {error}") from error


def config_from_json(text: bytes | msgspec.Raw) -> ProfileConfig:
    """Read a profile. Raises ProfileError, naming the field."""
    try:
        return msgspec.json.decode(text, type=ProfileConfig)
    except msgspec.ValidationError as error:
        raise ProfileError(arguments.described(error)) from error


def profile_from_object(spec: Any, registry: Registry | None = None) -> Profile:
    """A Profile from decoded JSON or YAML. Raises ProfileError, naming the field."""
    return Profile(config_from_json(msgspec.json.encode(spec)), registry)


__all__ = [
    "DEFAULT_SCHEDULER_NAME",
    "PluginConfig",
    "PluginRef",
    "PluginSet",
    "Plugins",
    "Profile",
    "ProfileConfig",
    "ProfileError",
    "Scorer",
    "config_from_json",
    "profile_from_object",
]
