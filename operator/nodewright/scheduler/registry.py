"""The table of plugins: ours in upstream's order, then those of other packages.

A plugin of another package is a class derived from `nodewright.scheduler.plugin.Plugin`, made known by an entry point:

    [project.entry-points."nodewright.scheduler.plugins"]
    QuietNodes = "my_package.quiet:QuietNodes"

and enabled by name in a SchedulerProfile, or with `nodewright scheduler --plugin QuietNodes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from .plugin import Plugin
from .plugins.balanced_allocation import BalancedAllocation
from .plugins.image_locality import ImageLocality
from .plugins.node_affinity import NodeAffinity
from .plugins.node_name import NodeName
from .plugins.node_ports import NodePorts
from .plugins.node_resources_fit import NodeResourcesFit
from .plugins.node_unschedulable import NodeUnschedulable
from .plugins.taint_toleration import TaintToleration

ENTRY_POINT_GROUP = "nodewright.scheduler.plugins"

# Upstream's order: the first plugin that rejects a node gives the reason that is counted.
DEFAULT_PLUGINS: tuple[type[Plugin], ...] = (
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    BalancedAllocation,
    ImageLocality,
)

# Plugins of upstream that have no class here: the scheduler itself does their work, always.
BUILT_IN = frozenset({"SchedulingGates", "PrioritySort", "DefaultBinder"})


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
            cls = self._classes[name] = _load(name)
        return cls


def _load(name: str) -> type[Plugin]:
    points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    found = points.select(name=name)
    if not found:
        known = sorted({cls.name for cls in DEFAULT_PLUGINS} | set(points.names))
        raise UnknownPluginError(f"no scheduler plugin is named {name!r} (known: {', '.join(known)})")
    point = next(iter(found))
    where = f"scheduler plugin {name!r} ({point.value})"
    try:
        cls = point.load()
    except Exception as error:  # whatever the foreign module raises while it is imported
        raise UnknownPluginError(f"{where} cannot be loaded: {error!r}") from error
    if not (isinstance(cls, type) and issubclass(cls, Plugin)):
        raise UnknownPluginError(f"{where} is not a subclass of {Plugin.__module__}.{Plugin.__qualname__}")
    if getattr(cls, "name", None) != name:
        raise UnknownPluginError(f"{where} calls itself {getattr(cls, 'name', None)!r}")
    return cls
