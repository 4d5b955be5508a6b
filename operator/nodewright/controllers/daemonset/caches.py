"""What all DaemonSet controllers of a process look at, kept once: pods are many, and both kinds need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

from nodewright.controllers.daemonset.claims import controller
from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import PRE_PULL_OF_LABEL, DaemonSet, Meta, Node, Pod, Revision
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.objects import OwnerReference
from nodewright.kube.resources import CONTROLLERREVISIONS, NODES, PODS, Resource


class Caches:
    """Nodes, pods, revisions and DaemonSets, as `WatchCache`s that nobody has started yet. Get them by `of`."""

    def __init__(self, client: Client) -> None:
        """Describe the caches; nothing is sent."""
        self._client = client
        self._daemonsets: dict[Resource, WatchCache[DaemonSet]] = {}
        self._handlers: list[Callable[[DaemonSet | None, DaemonSet | None], None]] = []
        self.nodes = WatchCache(client, NODES, type=Node, name="daemonset/nodes")
        self.pods = WatchCache(
            client, PODS, type=Pod, indexes={"owner": owner_index, "puller": puller_index}, name="daemonset/pods"
        )
        self.revisions = WatchCache(
            client, CONTROLLERREVISIONS, type=Revision, indexes={"owner": owner_index}, name="daemonset/revisions"
        )

    def daemonsets(self, kind: Kind) -> WatchCache[DaemonSet]:
        """The DaemonSets of one kind."""
        found = self._daemonsets.get(kind.resource)
        if found is None:
            found = self._daemonsets[kind.resource] = WatchCache(
                self._client,
                kind.resource,
                type=DaemonSet,
                indexes={"namespace": lambda ds: (ds.metadata.namespace,)},
                name=f"{kind.controller}/{kind.resource.plural}",
            )
            for handler in self._handlers:
                found.add_handler(handler)
        return found

    def neighbours(self, ds: DaemonSet) -> list[tuple[Resource, DaemonSet]]:
        """The other DaemonSets of its namespace, of all kinds that are served."""
        return [
            (resource, other)
            for resource, cache in self._daemonsets.items()
            for other in cache.by_index("namespace", ds.metadata.namespace)
            if other.metadata.uid != ds.metadata.uid
        ]

    def on_daemonset(self, handler: Callable[[DaemonSet | None, DaemonSet | None], None]) -> None:
        """Call handler(old, new) for changes of DaemonSets of all kinds, those that are to be served later as well."""
        self._handlers.append(handler)
        for cache in self._daemonsets.values():
            cache.add_handler(handler)

    @staticmethod
    def of(client: Client) -> Caches:
        """The caches of this client: the same ones as long as somebody holds them."""
        found = _made.get(id(client))
        if found is None:
            found = _made[id(client)] = Caches(client)
        return found


# By id: caches hold their client, so an id is not given anew while its caches live. (With the client itself as a weak
# key, they would keep it, and so themselves, for ever.)
_made: WeakValueDictionary[int, Caches] = WeakValueDictionary()


def owner_index(obj: Pod | Revision) -> Iterable[str]:
    """Under its controller's UID, or with the orphans of its namespace; pullers are no orphans."""
    ref = controller(obj.metadata)
    if ref is not None:
        return (ref.uid,)
    return () if PRE_PULL_OF_LABEL in obj.metadata.labels else (f"orphans/{obj.metadata.namespace}",)


def puller_index(pod: Pod) -> Iterable[str]:
    """A pod that pulls images (see `prepull`) under the UID of its DaemonSet, or with the orphans of its namespace."""
    if PRE_PULL_OF_LABEL not in pod.metadata.labels:
        return ()
    ref = puller_owner(pod.metadata)
    return (ref.uid if ref is not None else f"orphans/{pod.metadata.namespace}",)


def puller_owner(meta: Meta) -> OwnerReference | None:
    """The DaemonSet for which a pod pulls images."""
    return next(iter(meta.owner_references), None) if PRE_PULL_OF_LABEL in meta.labels else None
