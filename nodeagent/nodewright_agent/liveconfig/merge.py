"""Which settings the NodeAgentConfigs that select a node come to, and where each of them is from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nodewright.kube.api.nodeconfigs import InvalidConfig, NodeAgentConfig, fields, precedence, selector


class Setting(NamedTuple):
    """A value, and the name of the object that it is from."""

    value: Any
    source: str


class Merged(NamedTuple):
    """What the objects say to one node."""

    settings: dict[str, Setting]
    """By the path of the field (see `nodeconfigs.FIELDS`); a field that no object has is not there."""
    selected: dict[str, frozenset[str]]
    """The valid objects that select the node, by name, with the fields that each of them has."""
    invalid: dict[str, str]
    """Objects that are left out, by name, with the reason."""

    def get(self, field: str) -> Any:
        """Give a value; None where no object sets it."""
        setting = self.settings.get(field)
        return setting.value if setting is not None else None


NOTHING = Merged({}, {}, {})


def merge(configs: Iterable[NodeAgentConfig], labels: Mapping[str, str]) -> Merged:
    """Merge field by field: the highest priority wins, then the older object, then the name.

    Objects that are being deleted have no say any more. Invalid ones that select the node are left out whole: to apply
    half of what somebody wrote would be worse. One whose selector cannot be read selects no node.
    """
    merged = Merged({}, {}, {})
    for config in sorted(configs, key=precedence):
        name = config.metadata.name
        if config.metadata.deletion_timestamp:
            continue
        try:
            if not selector(config).matches(dict(labels)):
                continue
        except InvalidConfig:
            continue
        try:
            own = fields(config)
        except InvalidConfig as error:
            merged.invalid[name] = str(error)
            continue
        merged.selected[name] = frozenset(own)
        for field, value in own.items():
            merged.settings.setdefault(field, Setting(value, name))
    return merged
