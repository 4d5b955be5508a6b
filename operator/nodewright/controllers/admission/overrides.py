"""Review of spec.nodeOverrides: each makes a variant of a DaemonSet's template, which must make a valid Pod. Pure.

Upstream has no such field; the messages are those that it has for the same faults in a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from nodewright.controllers.admission.containers import check_resources
from nodewright.controllers.admission.fields import Json, child, entries, not_found
from nodewright.controllers.admission.labels import check_selector
from nodewright.controllers.daemonset.extensions import NodeOverride
from nodewright.controllers.daemonset.sizes import overridden
from nodewright.framework.webhook.review import Cause

_IN_CONTAINER = re.compile(r"spec\.(containers|initContainers)\[(\d+)\]\.(.+)")
_IN_VARIABLE = re.compile(r"env\[(\d+)\](.*)")
_KINDS = ("containers", "initContainers")


class Variant(msgspec.Struct, frozen=True):
    """The template as an override makes it; `path` is where the override is in the DaemonSet."""

    path: str
    override: Json
    template: Json


def check_overrides(spec: Json) -> list[Cause]:
    """Faults of the overrides that can be seen without asking the API server."""
    pod = child(spec, "template", "spec")
    known = {container.get("name"): container for kind in _KINDS for _, container in entries(pod, kind, "")}
    causes: list[Cause] = []
    for path, override in entries(spec, "nodeOverrides", "spec"):
        causes += check_selector(child(override, "nodeSelector"), f"{path}.nodeSelector")
        for where, change in entries(override, "containers", path):
            container = known.get(change.get("name"))
            if container is None:
                causes.append(not_found(f"{where}.name", change.get("name")))
                continue
            resources = {**child(container, "resources"), **child(change, "resources")}
            causes += check_resources(resources, f"{where}.resources")
    return causes


def variants(ds: Json) -> list[Variant]:
    """The templates that the overrides make."""
    spec = child(ds, "spec")
    template = child(spec, "template")
    return [
        Variant(path, override, overridden(template, msgspec.convert(override, NodeOverride)))
        for path, override in entries(spec, "nodeOverrides", "spec")
    ]


def translated(variant: Variant, causes: Iterable[Cause]) -> list[Cause]:
    """Causes that name fields of the Pod as causes that name what the override says, where it says it."""
    return [_translated(variant, cause) for cause in causes]


def _translated(variant: Variant, cause: Cause) -> Cause:
    field = cause.field.removeprefix(".")
    if place := _place(variant, field):
        return Cause(place, cause.message, cause.reason)
    return Cause(variant.path, f"{field}: {cause.message}" if field else cause.message, cause.reason)


def _place(variant: Variant, field: str) -> str:
    """Where the override says what is in a field of the Pod; "" where it does not."""
    match = _IN_CONTAINER.fullmatch(field)
    container = _item(child(variant.template, "spec").get(match[1]), match[2]) if match else None
    if match is None or container is None:
        return ""
    for where, change in entries(variant.override, "containers", variant.path):
        if change.get("name") == container.get("name"):
            in_variable = _IN_VARIABLE.fullmatch(match[3])
            if in_variable is None:
                return f"{where}.{match[3]}"
            variable = _item(container.get("env"), in_variable[1])
            for index, own in enumerate(change.get("env") or []):
                if variable is not None and own.get("name") == variable.get("name"):
                    return f"{where}.env[{index}]{in_variable[2]}"
    return ""


def _item(items: Any, index: str) -> Json | None:
    """An item of a list; None where it has none: other webhooks may have added containers to the Pod."""
    found: Json | None = items[int(index)] if isinstance(items, list) and int(index) < len(items) else None
    return found
