"""A picture of a cluster: all objects that a scheduler follows, from the API or from a dump, and back into a dump.

A dump has the form of `kubectl get ... -o yaml`. Ours holds only the fields that scheduling reads: no commands, no
environment, nothing secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import (
    APPS_REPLICASETS,
    APPS_STATEFULSETS,
    CSIDRIVERS,
    CSINODES,
    CSISTORAGECAPACITIES,
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODDISRUPTIONBUDGETS,
    PODS,
    PRIORITYCLASSES,
    REPLICATIONCONTROLLERS,
    SCHEDULERPROFILES,
    SERVICES,
    STORAGECLASSES,
    VOLUMEATTACHMENTS,
    Resource,
)

from .. import events
from ..core import SchedulerCore
from ..objects import Lean, Node, ObjectMeta, Pod
from ..profiles import SchedulerProfile
from ..service import NOT_FINISHED
from ..storage_objects import (
    Claim,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    StorageClass,
    StorageMeta,
    VolumeAttachment,
)
from ..surroundings import OWNERS
from ..world_objects import DisruptionBudget, Namespace, SelectorOwner, Service
from .documents import Body, Document
from .quantities import quantities_as_text

T = TypeVar("T")

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


class PriorityClass(Lean):
    """A PriorityClass, projected."""

    metadata: ObjectMeta
    value: int = 0
    global_default: bool = False
    preemption_policy: str = ""


class ClassMeta(StorageMeta):
    """Metadata of a class; an annotation makes it the default."""

    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class AnnotatedClass(StorageClass):
    """A StorageClass that knows whether it is the default."""

    metadata: ClassMeta

    @property
    def is_default(self) -> bool:
        """Whether claims without a class get this one."""
        return self.metadata.annotations.get(DEFAULT_CLASS) == "true"


KINDS: dict[Resource, type[Any]] = {
    NAMESPACES: Namespace,
    PRIORITYCLASSES: PriorityClass,
    SCHEDULERPROFILES: SchedulerProfile,
    NODES: Node,
    PODS: Pod,
    SERVICES: Service,
    APPS_REPLICASETS: SelectorOwner,
    APPS_STATEFULSETS: SelectorOwner,
    REPLICATIONCONTROLLERS: SelectorOwner,
    PODDISRUPTIONBUDGETS: DisruptionBudget,
    STORAGECLASSES: AnnotatedClass,
    PERSISTENTVOLUMES: PersistentVolume,
    PERSISTENTVOLUMECLAIMS: Claim,
    CSINODES: CSINode,
    CSIDRIVERS: CSIDriver,
    CSISTORAGECAPACITIES: CSIStorageCapacity,
    VOLUMEATTACHMENTS: VolumeAttachment,
}
_BY_NAME = {(resource.group, resource.kind): resource for resource in KINDS}


class Snapshot:
    """The objects, by kind. An object that comes twice is replaced."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[tuple[str, str], Any]] = {resource: {} for resource in KINDS}

    def all(self, resource: Resource, kind: type[T]) -> list[T]:
        """The objects of a kind; `kind` is the struct that stands for it."""
        assert KINDS[resource] is kind
        return list(self._objects[resource].values())

    def get(self, resource: Resource, kind: type[T], name: str, namespace: str = "") -> T | None:
        """One object, or None."""
        assert KINDS[resource] is kind
        found: T | None = self._objects[resource].get((namespace, name))
        return found

    def names(self, resource: Resource) -> frozenset[str]:
        """The names of the objects of a kind."""
        return frozenset(name for _, name in self._objects[resource])

    def put(self, resource: Resource, item: Any) -> None:
        """Add an object, or replace the one of its name. Pods that have ended are left out."""
        if isinstance(item, Pod) and events.is_finished(item):
            return
        self._objects[resource][item.metadata.namespace, item.metadata.name] = item

    def add(self, document: Document, namespace: str = "default") -> bool:
        """Add an object of a file; `namespace` is for one that names none. False for kinds that take no part.

        Raises ManifestError.
        """
        resource = _BY_NAME.get((document.group, document.kind))
        if resource is None:
            return False
        body = quantities_as_text(document)
        meta = {"namespace": namespace, **document.meta} if resource.namespaced else document.meta
        if not meta.get("name"):
            raise document.error("metadata.name: Required value")
        if resource is NAMESPACES:
            meta = {**meta, "labels": {"kubernetes.io/metadata.name": meta["name"], **(meta.get("labels") or {})}}
        item = document.convert(KINDS[resource], {**body, "metadata": meta})
        if isinstance(item, PersistentVolume) and not item.status.phase and item.spec.claim_ref is None:
            item.status.phase = "Available"  # as the volume controller would say of one that was just made
        self.put(resource, item)
        return True

    def tell(self, core: SchedulerCore) -> None:
        """Tell a core of all of it, Pods apart."""
        for resource, handler in _handlers(core).items():
            for item in self._objects[resource].values():
                handler(None, item)

    def dump(self) -> Body:
        """All of it as one List, as kubectl prints it."""
        items = [
            {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                **_plain(item),
            }
            for resource, objects in self._objects.items()
            for item in objects.values()
        ]
        return {"apiVersion": "v1", "kind": "List", "items": items}


def _plain(item: Any) -> Body:
    plain: Body = msgspec.json.decode(msgspec.json.encode(item))
    # It has all that the projection leaves out.
    plain["metadata"].get("annotations", {}).pop(LAST_APPLIED, None)
    return plain


def _handlers(core: SchedulerCore) -> dict[Resource, Callable[[Any, Any], object]]:
    storage = core.state.storage

    def owner_of(resource: Resource) -> Callable[[Any, Any], object]:
        return lambda old, new: core.on_owner((resource.api_version, resource.kind), old, new)

    return {
        NAMESPACES: core.on_namespace,
        NODES: core.on_node,
        SERVICES: core.on_service,
        PODDISRUPTIONBUDGETS: core.on_budget,
        **{resource: owner_of(resource) for resource in OWNERS},
        STORAGECLASSES: storage.on_class,
        PERSISTENTVOLUMES: storage.on_volume,
        PERSISTENTVOLUMECLAIMS: storage.on_claim,
        CSINODES: storage.on_csi_node,
        CSIDRIVERS: storage.on_csi_driver,
        CSISTORAGECAPACITIES: storage.on_capacity,
        VOLUMEATTACHMENTS: storage.on_attachment,
    }


def from_documents(documents: Iterable[Document]) -> Snapshot:
    """The picture that a dump holds; other kinds are left out. Raises ManifestError."""
    snapshot = Snapshot()
    for document in documents:
        snapshot.add(document)
    return snapshot


async def from_cluster(client: Client) -> Snapshot:
    """The picture of a live cluster. Raises ApiError."""
    snapshot = Snapshot()

    async def load(resource: Resource, kind: type[Any]) -> None:
        selector = NOT_FINISHED if resource is PODS else ""
        try:
            found = await client.list(resource, type=kind, field_selector=selector)
        except NotFound:
            return  # SchedulerProfiles, where the kind is not defined
        for item in found.items:
            snapshot.put(resource, item)

    await asyncio.gather(*(load(resource, kind) for resource, kind in KINDS.items()))
    return snapshot
