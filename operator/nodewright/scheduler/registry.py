"""The table of plugins: ours in upstream's order, then those of other packages.

A plugin of another package is a class derived from `nodewright.scheduler.plugin.Plugin`, made known by an entry point:

    [project.entry-points."nodewright.scheduler.plugins"]
    QuietNodes = "my_package.quiet:QuietNodes"

and enabled by name in a SchedulerProfile, or with `nodewright scheduler --plugin QuietNodes`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import metadata

import msgspec

from .events import Event
from .plugin import Plugin, Scope
from .plugins.balanced_allocation import BalancedAllocation
from .plugins.default_preemption import DefaultPreemption
from .plugins.dynamic_resources import DynamicResources
from .plugins.image_locality import ImageLocality
from .plugins.inter_pod_affinity import InterPodAffinity
from .plugins.node_affinity import NodeAffinity
from .plugins.node_name import NodeName
from .plugins.node_ports import NodePorts
from .plugins.node_resources_fit import NodeResourcesFit
from .plugins.node_unschedulable import NodeUnschedulable
from .plugins.node_volume_limits import NodeVolumeLimits
from .plugins.pod_topology_spread import PodTopologySpread
from .plugins.taint_toleration import TaintToleration
from .plugins.volume_binding import VolumeBinding
from .plugins.volume_restrictions import VolumeRestrictions
from .plugins.volume_zone import VolumeZone
from .pods import PodPart
from .points import MAX_WEIGHT

ENTRY_POINT_GROUP = "nodewright.scheduler.plugins"

# Upstream's order: the first plugin that rejects a node gives the reason that is counted.
DEFAULT_PLUGINS: tuple[type[Plugin], ...] = (
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    BalancedAllocation,
    ImageLocality,
)


class UnknownPluginError(ValueError):
    """No plugin has that name, or it cannot be loaded."""


class Registry:
    """Finds plugin classes by name."""

    def __init__(self, extra: Mapping[str, type[Plugin]] | None = None) -> None:
        self._classes: dict[str, type[Plugin]] = {cls.name: cls for cls in DEFAULT_PLUGINS}
        self._classes.update(extra or {})

    def find(self, name: str) -> type[Plugin]:
        """The class of a plugin. Raises UnknownPluginError, saying why."""
        cls = self._classes.get(name)
        if cls is None:
            # A failure is not remembered: the package may be installed or mended meanwhile.
            cls = self._classes[name] = _load(name)
        return cls

    def knows(self, name: str) -> bool:
        """Whether some package has a plugin of that name; it is not loaded."""
        return name in self._classes or bool(metadata.entry_points(group=ENTRY_POINT_GROUP, name=name))


def _load(name: str) -> type[Plugin]:
    points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    found = {point.value: point for point in points.select(name=name)}
    if not found:
        known = sorted({cls.name for cls in DEFAULT_PLUGINS} | set(points.names))
        raise UnknownPluginError(f"no scheduler plugin is named {name!r} (known: {', '.join(known)})")
    if len(found) > 1:
        raise UnknownPluginError(f"scheduler plugin {name!r} is in several packages: {', '.join(sorted(found))}")
    ((value, point),) = found.items()
    where = f"scheduler plugin {name!r} ({value})"
    try:
        cls = point.load()
    except (Exception, SystemExit) as error:  # whatever the foreign module raises while it is imported
        raise UnknownPluginError(f"{where} cannot be loaded: {error!r}") from error
    if not (isinstance(cls, type) and issubclass(cls, Plugin)):
        raise UnknownPluginError(f"{where} is not a subclass of {Plugin.__module__}.{Plugin.__qualname__}")
    if fault := _fault(cls, name):
        raise UnknownPluginError(f"{where} {fault}")
    return cls


def _fault(cls: type[Plugin], name: str) -> str:
    """What keeps a class from being used, "" for nothing. What it answers is looked at in each cycle."""
    if getattr(cls, "name", None) != name:
        return f"calls itself {getattr(cls, 'name', None)!r}"
    declared: dict[str, type] = {"weight": int, "scope": Scope, "reads": PodPart, "events": Event}
    for attribute, kind in declared.items():
        value = getattr(cls, attribute)
        if not isinstance(value, kind):
            return f"has {attribute} = {value!r}, which is no {kind.__name__}"
    if not 1 <= cls.weight <= MAX_WEIGHT:
        return f"has weight {cls.weight}, which is not in the range of 1 to {MAX_WEIGHT}"
    args_type = cls.args_type
    if args_type is not None and not (isinstance(args_type, type) and issubclass(args_type, msgspec.Struct)):
        return f"has args_type = {args_type!r}, which is no msgspec.Struct"
    for method in ("prepare", "filter", "score", "normalize", "shares", "reserve", "unreserve", "wants_pre_bind"):
        if inspect.iscoroutinefunction(getattr(cls, method)):
            return f"has an async {method}; only pre_bind may await"
    if not inspect.iscoroutinefunction(cls.pre_bind):
        return "has a pre_bind that is not async"
    return ""
