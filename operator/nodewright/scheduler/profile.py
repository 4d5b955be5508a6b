"""A profile: which plugins decide for the Pods of one schedulerName, in which order and with which weights.

The configuration has KubeSchedulerConfiguration's field names and merge rules: the defaults are enabled first, a
default that is configured again keeps its place, new plugins are appended, and `disabled` takes names away
(`*` takes all).
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import msgspec

from .events import Event
from .plugin import Plugin, Scope
from .pods import PodPart
from .registry import BUILT_IN, DEFAULT_PLUGINS, Registry

DEFAULT_SCHEDULER_NAME = "nodewright"


class ProfileError(ValueError):
    """A profile that cannot be used. The message names the field."""


class PluginRef(msgspec.Struct):
    """A plugin by name; weight 0 means the plugin's own."""

    name: str
    weight: int = 0


class PluginSet(msgspec.Struct):
    """Plugins switched on and off at one extension point."""

    enabled: list[PluginRef] = []
    disabled: list[PluginRef] = []


class Plugins(msgspec.Struct, rename="camel"):
    """Plugin sets per extension point; `multiPoint` means all points that a plugin has."""

    multi_point: PluginSet = msgspec.field(default_factory=PluginSet)
    filter: PluginSet = msgspec.field(default_factory=PluginSet)
    score: PluginSet = msgspec.field(default_factory=PluginSet)


class PluginConfig(msgspec.Struct):
    """Arguments of a plugin."""

    name: str
    args: msgspec.Raw = msgspec.Raw(b"{}")


class ProfileConfig(msgspec.Struct, rename="camel"):
    """A KubeSchedulerProfile. percentageOfNodesToScore is accepted and has no effect: every node is looked at."""

    scheduler_name: str = DEFAULT_SCHEDULER_NAME
    plugins: Plugins = msgspec.field(default_factory=Plugins)
    plugin_config: list[PluginConfig] = []


class Scorer(msgspec.Struct, frozen=True):
    """A plugin that scores, and the weight of its score in the sum."""

    plugin: Plugin
    weight: int
    normalizes: bool


class Profile:
    """Plugin instances in order. Raises ProfileError for a configuration that cannot be used."""

    def __init__(self, config: ProfileConfig | None = None, registry: Registry | None = None) -> None:
        config = config or ProfileConfig()
        self.scheduler_name = config.scheduler_name
        self._args = _args_by_name(config.plugin_config)
        self._registry = registry or Registry()
        self._instances: dict[str, Plugin] = {}
        defaults = {cls.name: cls.weight for cls in DEFAULT_PLUGINS}
        everywhere = _merged(defaults, config.plugins.multi_point, "plugins.multiPoint")
        filters = _merged(everywhere, config.plugins.filter, "plugins.filter")
        scores = _merged(everywhere, config.plugins.score, "plugins.score")
        plugins = {name: self._instance(name) for name in {**everywhere, **filters, **scores}}
        self.preparers = [p for p in plugins.values() if p.extends("prepare")]
        self.filters = [p for n, p in plugins.items() if n in filters and p.extends("filter")]
        self.scorers = [
            Scorer(p, scores[n] or p.weight, p.extends("normalize"))
            for n, p in plugins.items()
            if n in scores and p.extends("score")
        ]
        self.plugins = plugins
        for name in self._args:
            if name not in plugins:
                raise ProfileError(f"pluginConfig: plugin {name!r} is not enabled")
        self.reads: PodPart = functools.reduce(operator.or_, (p.reads for p in plugins.values()), PodPart.SPEC)
        self.has_cluster_scope = any(p.scope == Scope.CLUSTER for p in plugins.values())

    def wakers(self, names: set[str]) -> Event:
        """The events after which a Pod rejected by these plugins is worth another try."""
        return functools.reduce(operator.or_, (self.plugins[n].events for n in names if n in self.plugins), Event.NONE)

    def _instance(self, name: str) -> Plugin:
        try:
            cls = self._registry.find(name)
        except ValueError as error:
            raise ProfileError(f"plugins: {error}") from error
        raw = self._args.get(name)
        if raw is None:
            return cls()
        if cls.args_type is None:
            raise ProfileError(f"pluginConfig: plugin {name!r} takes no arguments")
        try:
            return cls(_decode_args(raw, cls.args_type))
        except (msgspec.ValidationError, ValueError) as error:
            raise ProfileError(f"pluginConfig[{name}].args: {error}") from error


def profile_from_object(spec: object, registry: Registry | None = None) -> Profile:
    """A Profile from decoded JSON or YAML. Raises ProfileError, naming the field."""
    try:
        config = msgspec.json.decode(msgspec.json.encode(spec), type=ProfileConfig)
    except msgspec.ValidationError as error:
        raise ProfileError(str(error)) from error
    return Profile(config, registry)


def _decode_args(raw: msgspec.Raw, args_type: type[msgspec.Struct]) -> Any:
    args = msgspec.json.decode(raw)
    if isinstance(args, dict):
        # Type information is allowed around arguments, as in a file for kube-scheduler.
        args = {key: value for key, value in args.items() if key not in ("apiVersion", "kind")}
    return msgspec.convert(args, args_type)


def _args_by_name(configs: list[PluginConfig]) -> dict[str, msgspec.Raw]:
    found: dict[str, msgspec.Raw] = {}
    for index, config in enumerate(configs):
        if config.name in found:
            raise ProfileError(f"pluginConfig[{index}].name: {config.name!r} is configured twice")
        found[config.name] = config.args
    return found


def _merged(base: dict[str, int], changes: PluginSet, field: str) -> dict[str, int]:
    """Plugin names in order with their weights (0: the plugin's own) after the changes."""
    enabled: dict[str, int] = {}
    for index, ref in enumerate(changes.enabled):
        if ref.name in enabled:
            raise ProfileError(f"{field}.enabled[{index}].name: {ref.name!r} is enabled twice")
        if ref.weight < 0:
            raise ProfileError(f"{field}.enabled[{index}].weight: must not be negative")
        enabled[ref.name] = ref.weight
    disabled = {ref.name for ref in changes.disabled}
    kept = {} if "*" in disabled else {name: weight for name, weight in base.items() if name not in disabled}
    merged = {name: enabled.pop(name) or weight if name in enabled else weight for name, weight in kept.items()}
    return {**merged, **{name: weight for name, weight in enabled.items() if name not in BUILT_IN}}
