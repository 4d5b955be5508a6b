"""Owner references: who controls an object."""

from __future__ import annotations

from typing import Any

from nodewright.kube.api.meta import ObjectMeta, OwnerReference
from nodewright.kube.resources import Resource


def controller_of(meta: ObjectMeta) -> OwnerReference | None:
    """Give the owner that is the controller, of which an object has at most one."""
    return next((reference for reference in meta.owner_references if reference.controller), None)


def owner_reference(obj: Any, controller: bool = True, resource: Resource | None = None) -> OwnerReference:
    """Build the reference to an owner; the kind comes from `resource`, or from the object's type.

    Raises ValueError when kind, name or UID is unknown: a reference without UID would let the garbage collector
    delete the child.
    """
    if resource is not None:
        api_version, kind = resource.api_version, resource.kind
    else:
        api_version, kind = getattr(obj, "API_VERSION", ""), getattr(obj, "KIND", "")
    meta = obj.metadata
    if not (api_version and kind and meta.name and meta.uid):
        raise ValueError(f"an owner needs apiVersion, kind, name and uid: {api_version} {kind} {meta.name} {meta.uid}")
    return OwnerReference(api_version, kind, meta.name, meta.uid, controller or None, True if controller else None)


def is_controlled_by(meta: ObjectMeta, owner: Any) -> bool:
    """Tell whether `owner` is the controller, by UID: an owner of the same name made later is another one."""
    reference = controller_of(meta)
    return reference is not None and reference.uid == owner.metadata.uid
