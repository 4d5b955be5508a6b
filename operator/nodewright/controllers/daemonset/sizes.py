"""Classes of nodes on which containers have other resources or environment variables (spec.nodeOverrides). Pure.

A pod carries its class in an annotation: the name of the override, and a hash of what it says. So a change of one
override, or of a node's labels, makes the pods of the nodes that it is about outdated, and no others. Overrides are no
part of the template and so of no revision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from nodewright.controllers.daemonset.canonical import canonical_bytes
from nodewright.controllers.daemonset.extensions import ContainerOverride, NodeOverride
from nodewright.controllers.daemonset.model import NODE_CLASS_ANNOTATION, DaemonSet
from nodewright.controllers.daemonset.view import View
from nodewright.kube import quantity

Json = dict[str, Any]


def class_of(ds: DaemonSet, labels: dict[str, str]) -> str:
    """The class of a node with these labels, `NAME/HASH` of the first override that matches; "" where none does."""
    override = next((o for o in ds.spec.node_overrides if o.node_selector.matches(labels)), None)
    return class_name(override) if override is not None else ""


def classes(view: View) -> Mapping[str, str]:
    """The class of every node that has one."""
    overrides = view.ds.spec.node_overrides
    if not overrides:
        return {}
    names = [(override, class_name(override)) for override in overrides]
    found: dict[str, str] = {}
    for node, obj in view.nodes.items():
        for override, name in names:
            if override.node_selector.matches(obj.metadata.labels):
                found[node] = name
                break
    return found


def class_name(override: NodeOverride) -> str:
    """What pods are marked with. Other spellings of the same amounts or variables do not change it."""
    containers = [_plain(container) for container in sorted(override.containers, key=lambda c: c.name)]
    content = canonical_bytes({"spec": {"containers": containers}})
    return f"{override.name}/{hashlib.sha256(content).hexdigest()[:8]}"


def override_for(ds: DaemonSet, name: str) -> NodeOverride | None:
    """The override of a class."""
    return next((o for o in ds.spec.node_overrides if o.name == name.partition("/")[0]), None)


def overridden(template: Json, override: NodeOverride) -> Json:
    """The template as it is for nodes of a class; the given one stays as it is.

    Containers that it lacks, as one of an older revision may, are passed over.
    """
    spec: Json = dict(template.get("spec") or {})
    changes = {container.name: container for container in override.containers}
    for field in ("initContainers", "containers"):
        if isinstance(found := spec.get(field), list):
            spec[field] = [_changed(c, changes[c["name"]]) if c.get("name") in changes else c for c in found]
    meta: Json = dict(template.get("metadata") or {})
    meta["annotations"] = {**(meta.get("annotations") or {}), NODE_CLASS_ANNOTATION: class_name(override)}
    return {**template, "metadata": meta, "spec": spec}


def _changed(container: Json, change: ContainerOverride) -> Json:
    """Maps of resources (`requests`, `limits`) that are given replace the template's; variables are merged by name."""
    out = dict(container)
    if change.resources is not None:
        out["resources"] = {**(container.get("resources") or {}), **change.resources}
    if change.env:
        given = {variable.get("name"): variable for variable in change.env}
        merged = [given.pop(variable.get("name"), variable) for variable in container.get("env") or []]
        out["env"] = [*merged, *given.values()]
    return out


def _plain(container: ContainerOverride) -> Json:
    wire: Json = msgspec.to_builtins(container)
    for field in ("requests", "limits"):
        amounts = (wire.get("resources") or {}).get(field)
        if isinstance(amounts, dict):
            wire["resources"][field] = {name: _amount(amount) for name, amount in amounts.items()}
    return wire


def _amount(amount: Any) -> str:
    try:
        return str(quantity.parse(str(amount)))
    except quantity.QuantityError:
        return str(amount)
