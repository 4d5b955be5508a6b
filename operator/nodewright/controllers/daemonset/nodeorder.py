"""What the life of nodes asks of DaemonSets: who waits for whom on a new node, and who leaves last at a drain.

State beside the caches, fed by their handlers; no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nodewright.controllers.daemonset import drain, readiness
from nodewright.controllers.daemonset.claims import controller
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.model import DaemonSet, Node, Pod
from nodewright.controllers.daemonset.nodepods import NodePods
from nodewright.controllers.daemonset.owntaints import OwnTaints
from nodewright.kube.cache import WatchCache

_NO_READINESS = OwnTaints(drain=True)


class NodeOrder:
    """Knows how each DaemonSet of our own kind treats our own taints, and whose turn it is on a node being drained."""

    def __init__(self, daemonsets: WatchCache[DaemonSet], pods: WatchCache[Pod]) -> None:
        """The caches may still be empty."""
        self._daemonsets = daemonsets
        self._order: readiness.Order | None = None
        self._draining = NodePods(drain.is_draining, pods.values)

    @property
    def order(self) -> readiness.Order:
        """The DaemonSets with nodeReadiness, as they wait for each other."""
        if self._order is None:
            self._order = readiness.order(self._daemonsets.values())
        return self._order

    def own_taints(self, ds: DaemonSet) -> OwnTaints:
        """How the DaemonSet treats our own taints."""
        return self.order.own.get(ds.key, _NO_READINESS)

    def verdicts(self, ds: DaemonSet, verdicts: Mapping[str, Verdict], pods: Iterable[Pod]) -> Mapping[str, Verdict]:
        """The verdicts with the drains in them; `pods` are the DaemonSet's own."""
        if not drain.leaves_last(ds) or not self._draining.nodes:
            return verdicts
        changed = dict(verdicts)
        leaving = {other.metadata.uid for other in self._leave_last()}
        mine = list(pods)
        for node in self._draining.nodes:
            if node in changed:
                own = [pod for pod in mine if pod.target_node == node]
                changed[node] = drain.verdict(changed[node], drain.waits_for(own, self._draining.on(node), leaving))
        return changed

    # -- from changes to keys of DaemonSets -------------------------------------------------------------------------

    def daemonset_changed(self, old: DaemonSet | None, new: DaemonSet | None) -> list[str]:
        """Other DaemonSets for which this one's change makes a difference."""
        keys: set[str] = set()
        if readiness.has_readiness(old) or readiness.has_readiness(new):
            before, self._order = self._order, None
            if before is not None and (after := self.order) != before:
                names = before.own.keys() | after.own.keys()
                keys |= {n for n in names if _verdict_key(before, n) != _verdict_key(after, n)}
        if self._draining.nodes and _leaves_last(old) != _leaves_last(new):
            keys |= {ds.key for ds in self._leave_last()}
        return sorted(keys)

    def node_changed(self, old: Node | None, new: Node | None) -> list[str]:
        """DaemonSets that a drain, or its end, concerns."""
        return [ds.key for ds in self._leave_last()] if self._draining.node_changed(old, new) else []

    def pod_changed(self, old: Pod | None, new: Pod | None) -> Sequence[str]:
        """DaemonSets whose turn may have come on a node that is being drained."""
        node = self._draining.pod_changed(old, new)
        if node is None or _waited_for_alike(old, new):
            return ()
        owners = {ref.uid for pod in self._draining.on(node) if (ref := controller(pod.metadata)) is not None}
        return [ds.key for ds in self._leave_last() if ds.metadata.uid in owners]

    def _leave_last(self) -> list[DaemonSet]:
        return [ds for ds in self._daemonsets.values() if drain.leaves_last(ds)]


def _leaves_last(ds: DaemonSet | None) -> bool:
    return ds is not None and drain.leaves_last(ds)


def _verdict_key(order: readiness.Order, key: str) -> object:
    return order.own.get(key, _NO_READINESS).verdict_key


def _waited_for_alike(old: Pod | None, new: Pod | None) -> bool:
    """Whether a pod's change makes no difference to those that wait for its end."""
    if old is None or new is None:
        return False
    before, after = old.metadata, new.metadata
    return (before.uid, old.deleting, old.terminal, old.spec.node_name, before.owner_references) == (
        after.uid,
        new.deleting,
        new.terminal,
        new.spec.node_name,
        after.owner_references,
    )
