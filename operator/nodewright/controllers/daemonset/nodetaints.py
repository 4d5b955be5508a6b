"""The keeper of startup taints: tells the admission policy which ones new nodes get, and takes them away again.

The policy (see controlplane/nodereadiness.yaml and the chart) puts them on nodes as these are created, inside of the
API server, so it works while no operator does. Its parameter is a ConfigMap that only this controller changes. Taints
go by a patch that tests what it removes; what others change meanwhile is never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import ClassVar

from prometheus_client import Counter

from nodewright.controllers.daemonset import readiness
from nodewright.controllers.daemonset.actions import reference
from nodewright.controllers.daemonset.caches import Caches
from nodewright.controllers.daemonset.claims import controller
from nodewright.controllers.daemonset.kinds import NODEWRIGHT
from nodewright.controllers.daemonset.model import DaemonSet, Node, Pod
from nodewright.controllers.daemonset.nodepods import NodePods
from nodewright.controllers.daemonset.owntaints import is_startup
from nodewright.controllers.daemonset.placement import Placement
from nodewright.controllers.daemonset.readiness import Held, Order, Release
from nodewright.framework.controller import Controller, Result
from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import Conflict, Invalid, NotFound
from nodewright.kube.objects import ConfigMap, PartialObject, Taint
from nodewright.kube.resources import CONFIGMAPS, DAEMONSETS, NODES
from nodewright.kube.times import now as wall_clock

CONFIG_MAP = "nodewright-startup-taints"
_CONFIG_KEY = f"configmap/{CONFIG_MAP}"  # no node's name has a slash

RELEASED = Counter("nodewright_startup_taints_removed_total", "Startup taints taken off nodes", ["reason"])


class NodeTaintController(Controller):
    """Keys are names of nodes, and one that stands for the ConfigMap."""

    name: ClassVar[str] = "node-readiness"
    keeps_objects: ClassVar[bool] = True

    def __init__(
        self,
        client: Client,
        *,
        identity: str = "",
        namespace: str = "kube-system",
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        """`namespace` is where the ConfigMap is; `now` is the clock that readiness times are compared with."""
        super().__init__(client, identity=identity)
        self._namespace = namespace
        self._now = now
        self._shared = Caches.of(client)
        self._placement = Placement()  # for its parsed templates
        self._known: Order | None = None
        self._told: dict[str, tuple[str, ...]] = {}
        self._is_missing = False
        self._pods_of = NodePods(_is_held, self._shared.pods.values)
        self.daemonsets = self.share(self._shared.daemonsets(NODEWRIGHT), enqueue=self._for_daemonset)
        self.nodes = self.share(self._shared.nodes, enqueue=self._for_node)
        self.pods = self.share(self._shared.pods, enqueue=self._for_pod)
        self.config = self.watch(
            CONFIGMAPS,
            type=ConfigMap,
            enqueue=lambda _old, _new: (_CONFIG_KEY,),
            namespace=namespace,
            field_selector=f"metadata.name={CONFIG_MAP}",
        )
        self.queue.add(_CONFIG_KEY)  # also where there is neither a DaemonSet nor the ConfigMap

    # -- from changes to keys ---------------------------------------------------------------------------------------

    def _for_daemonset(self, old: DaemonSet | None, new: DaemonSet | None) -> Iterable[str]:
        if new is None and old is not None:
            self._placement.forget(old.key)
        if not (readiness.has_readiness(old) or readiness.has_readiness(new)):
            return ()
        if old is not None and new is not None and _unchanged(old, new):
            return ()
        self._known = None
        return (_CONFIG_KEY, *self._pods_of.nodes)

    def _for_node(self, old: Node | None, new: Node | None) -> Iterable[str]:
        """Nodes with startup taints, whenever their taints or labels change."""
        self._pods_of.node_changed(old, new)
        if new is None or new.metadata.name not in self._pods_of:
            return ()
        if old is not None and old.spec.taints == new.spec.taints and old.metadata.labels == new.metadata.labels:
            return ()
        return (new.metadata.name,)

    def _for_pod(self, old: Pod | None, new: Pod | None) -> Iterable[str]:
        node = self._pods_of.pod_changed(old, new)
        return (node,) if node is not None and new is not None and self._owner_key(new) else ()

    def _owner_key(self, pod: Pod) -> str | None:
        """The key of the DaemonSet with nodeReadiness that the pod belongs to."""
        ref = controller(pod.metadata)
        if ref is None or ref.kind != NODEWRIGHT.resource.kind:
            return None
        ds = self.daemonsets.get(f"{pod.metadata.namespace}/{ref.name}")
        return ds.key if ds is not None and ds.metadata.uid == ref.uid and readiness.has_readiness(ds) else None

    @property
    def _order(self) -> Order:
        if self._known is None:
            self._known = readiness.order(self.daemonsets.values())
        return self._known

    # -- reconciliation ---------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> Result | None:
        """Keep the ConfigMap, or look at the startup taints of a node."""
        if key == _CONFIG_KEY:
            await self._keep_config()
            self._tell_of_circles()
            return None
        node = self.nodes.get(key)
        if node is None:
            self.guard.forget(key)
            return None
        return await self._review(node)

    async def _review(self, node: Node) -> Result | None:
        pods: dict[str, list[Pod]] = {}
        for pod in self._pods_of.on(node.metadata.name):
            if owner := self._owner_key(pod):
                pods.setdefault(owner, []).append(pod)
        found = [self._look(node, taint, pods) for taint in node.spec.taints if is_startup(taint)]
        releases = [each for each in found if isinstance(each, Release)]
        waits = [each.retry_after for each in found if isinstance(each, Held) and each.retry_after is not None]
        if any(not each.owner for each in releases):
            # The cache may be behind, and a taint that is gone once does not come back: ask the API server itself.
            owners = readiness.order((await self.client.list(DAEMONSETS, type=DaemonSet)).items).owners
            if known := [each for each in releases if not each.owner and each.key in owners]:
                releases = [each for each in releases if each not in known]
                waits.append(1.0)
        if releases:
            await self._remove(node, releases)
        return Result(requeue_after=min(waits)) if waits else None

    def _look(self, node: Node, taint: Taint, pods: dict[str, list[Pod]]) -> Release | Held:
        owner = self._order.owners.get(taint.key, "")
        ds = self.daemonsets.get(owner)
        template = self._placement.template(ds) if ds is not None else None
        return readiness.review(taint, ds, template, node, pods.get(owner, ()), self._now())

    async def _remove(self, node: Node, releases: list[Release]) -> None:
        name = node.metadata.name
        patch = readiness.removal(node.spec.taints, [each.key for each in releases])
        try:
            done = await self.client.patch(NODES, name, patch, type=PartialObject, kind=PatchType.JSON)
        except NotFound:
            return
        except Invalid as error:
            # A test in the patch failed: somebody has changed the taints. The watch brings them.
            raise Conflict(409, "Conflict", f"the taints of node {name} have changed: {error.message}") from error
        self.guard.wrote(name, self.nodes, done.metadata.resource_version)
        for each in releases:
            reason = "PodAvailable" if each.pod else "NotWanted" if each.owner else "NoDaemonSet"
            RELEASED.labels(reason).inc()
            self.log.info("startup taint removed", extra={"node": name, "taint": each.key, "reason": reason})
            ds = self.daemonsets.get(each.owner) if each.pod else None
            if ds is not None:
                message = f"Removed the startup taint of node {name}: pod {each.pod} is available"
                self.events.event(reference(NODEWRIGHT, ds), "Normal", "NodeReleased", message)

    async def _keep_config(self) -> None:
        """Make the ConfigMap's data what new nodes are to get."""
        wanted = dict(self._order.effects)
        found = self.config.get(f"{self._namespace}/{CONFIG_MAP}")
        if found is None:
            if wanted and not self._is_missing:
                self.log.warning(
                    "there is no ConfigMap %s/%s: new nodes get no startup taints", self._namespace, CONFIG_MAP
                )
            self._is_missing = True
            return
        self._is_missing = False
        if found.data == wanted:
            return
        change = {**dict.fromkeys(found.data), **wanted}
        body = {"metadata": {"uid": found.metadata.uid}, "data": change}
        try:
            done = await self.client.patch(CONFIGMAPS, CONFIG_MAP, body, self._namespace, type=PartialObject)
        except NotFound:
            return
        self.guard.wrote(_CONFIG_KEY, self.config, done.metadata.resource_version)
        self.log.info("startup taints of new nodes", extra={"taints": ",".join(sorted(wanted)) or "none"})

    def _tell_of_circles(self) -> None:
        """Warn of names in `after` that are ignored; once, until they change."""
        circles = dict(self._order.circular)
        for key, others in circles.items():
            ds = self.daemonsets.get(key)
            if ds is not None and self._told.get(key) != others:
                message = f"nodeReadiness.after is ignored for {', '.join(others)}: it waits for this DaemonSet in turn"
                self.events.event(reference(NODEWRIGHT, ds), "Warning", "CircularNodeReadiness", message)
        self._told = circles


def _is_held(node: Node) -> bool:
    return any(is_startup(taint) for taint in node.spec.taints)


def _unchanged(old: DaemonSet, new: DaemonSet) -> bool:
    """Whether nothing differs that startup taints depend on."""
    meta, before = new.metadata, old.metadata
    return (meta.uid, meta.generation, meta.deletion_timestamp) == (
        before.uid,
        before.generation,
        before.deletion_timestamp,
    )
