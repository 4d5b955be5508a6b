"""Services and controllers, and the selector under which a Pod is spread when it says nothing itself."""

from __future__ import annotations

from collections.abc import Mapping

from nodewright.kube.api.meta import LabelSelector, LabelSelectorRequirement

from ..objects import Pod
from ..terms import Term
from ..world_objects import SelectorOwner, Service

Key = tuple[str, str]


class Owners:
    """What the default spreading constraints look at: Services, ReplicaSets, StatefulSets, ReplicationControllers."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, dict[str, str]]] = {}
        # By apiVersion and kind, then namespace and name: the selector.
        self._owners: dict[Key, dict[Key, LabelSelector]] = {}

    def set_service(self, old: Service | None, new: Service | None) -> bool:
        """A Service appeared, changed or went away. True when its selector did."""
        before = dict(old.spec.selector) if old is not None else {}
        after = dict(new.spec.selector) if new is not None else {}
        some = new or old
        assert some is not None
        meta = some.metadata
        if not after:
            self._services.get(meta.namespace, {}).pop(meta.name, None)
        else:
            self._services.setdefault(meta.namespace, {})[meta.name] = after
        return before != after

    def set_owner(self, kind: Key, old: SelectorOwner | None, new: SelectorOwner | None) -> bool:
        """A controller of this (apiVersion, kind) appeared, changed or went away. True when its selector did."""
        some = new or old
        assert some is not None
        key = (some.metadata.namespace, some.metadata.name)
        known = self._owners.setdefault(kind, {})
        selector = new.label_selector if new is not None else None
        before = known.get(key)
        if selector is None:
            known.pop(key, None)
        else:
            known[key] = selector
        return before != selector

    def default_term(self, pod: Pod) -> Term | None:
        """The Pods among which a Pod is spread by default (upstream: helper.DefaultSelector), None for no spreading."""
        meta = pod.metadata
        labels: dict[str, str] = {}
        for selector in self._services.get(meta.namespace, {}).values():
            if _covers(selector, meta.labels):
                labels |= selector
        expressions: list[LabelSelectorRequirement] = []
        owner = next((o for o in meta.owner_references if o.controller), None)
        if owner is not None:
            known = self._owners.get((owner.api_version, owner.kind), {})
            found = known.get((meta.namespace, owner.name))
            if found is not None and owner.kind == "ReplicationController":
                labels |= found.match_labels
            elif found is not None:
                pairs = found.match_labels.items()
                expressions = [LabelSelectorRequirement(key, "In", [value]) for key, value in pairs]
                expressions += found.match_expressions
        if not labels and not expressions:
            return None
        return Term([meta.namespace], LabelSelector(match_labels=labels, match_expressions=expressions))


def _covers(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
