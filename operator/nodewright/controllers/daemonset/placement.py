"""Verdicts for all nodes, remembered: nodes and templates change seldom.

Beside these two a verdict depends on how the DaemonSet treats our own taints, which changes still more seldom.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from nodewright.controllers.daemonset.eligibility import Verdict, judge
from nodewright.controllers.daemonset.model import DaemonSet, Node, Template
from nodewright.controllers.daemonset.owntaints import OwnTaints

_AS_ANY = OwnTaints()


class _Known(msgspec.Struct):
    uid: str
    generation: int
    template: Template
    own: OwnTaints
    verdicts: dict[str, tuple[Node, Verdict]]


class Placement:
    """Judges nodes for DaemonSets; objects of the caches never change, so identity tells whether one is the same."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: dict[str, _Known] = {}

    def template(self, ds: DaemonSet) -> Template:
        """The parsed template; it changes with the generation only."""
        return self._of(ds).template

    def judge(self, ds: DaemonSet, node: Node, own: OwnTaints = _AS_ANY) -> Verdict:
        """The verdict for one node, unremembered."""
        return judge(self._of(ds).template, node, own)

    def verdicts(self, ds: DaemonSet, nodes: Collection[Node], own: OwnTaints = _AS_ANY) -> dict[str, Verdict]:
        """A verdict for each of the nodes, by name."""
        known = self._of(ds)
        if known.own.verdict_key != own.verdict_key:
            known.own, known.verdicts = own, {}
        fresh: dict[str, tuple[Node, Verdict]] = {}
        for node in nodes:
            name = node.metadata.name
            last = known.verdicts.get(name)
            fresh[name] = last if last is not None and last[0] is node else (node, judge(known.template, node, own))
        known.verdicts = fresh
        return {name: verdict for name, (_, verdict) in fresh.items()}

    def forget(self, key: str) -> None:
        """The DaemonSet is gone."""
        self._known.pop(key, None)

    def _of(self, ds: DaemonSet) -> _Known:
        known = self._known.get(ds.key)
        meta = ds.metadata
        if known is None or (known.uid, known.generation) != (meta.uid, meta.generation):
            template = msgspec.json.decode(ds.spec.template, type=Template)
            known = self._known[ds.key] = _Known(meta.uid, meta.generation, template, _AS_ANY, {})
        return known
