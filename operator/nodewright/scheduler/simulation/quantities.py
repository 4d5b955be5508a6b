"""Quantities in manifests: YAML reads `cpu: 2` as a number, the API takes it as text; anything else is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nodewright.kube import quantity

from .documents import Body, Document

_WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController")


def quantities_as_text(document: Document) -> Body:
    """The object with all quantities as text. Raises ManifestError, naming the field, for what is none."""
    body = document.body
    for field, amounts in _amounts(document):
        for name, value in amounts.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                value = amounts[name] = f"{value}"
            where = f"{field}.{name}"
            if not isinstance(value, str):
                raise document.error(f"{where}: must be a quantity, not {value!r}")
            try:
                quantity.parse(value)
            except ValueError as error:
                raise document.error(f"{where}: {error}") from error
    return body


def _amounts(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping of resource names to quantities, with its field."""
    body = document.body
    match document.kind:
        case "Pod":
            yield from _of_pod(body.get("spec"), "spec")
        case "Node":
            yield from _below(body, "status", "allocatable", "capacity")
        case "PersistentVolume":
            yield from _below(body, "spec", "capacity")
        case "PersistentVolumeClaim":
            yield from _of_resources(body.get("spec"), "spec")
        case kind if kind in _WORKLOADS:
            template = _dict(_dict(body.get("spec")).get("template"))
            yield from _of_pod(template.get("spec"), "spec.template.spec")
            claims = _dict(body.get("spec")).get("volumeClaimTemplates")
            for index, claim in enumerate(claims if isinstance(claims, list) else []):
                yield from _of_resources(_dict(claim).get("spec"), f"spec.volumeClaimTemplates[{index}].spec")
        case "CronJob":
            job = _dict(_dict(_dict(body.get("spec")).get("jobTemplate")).get("spec"))
            template = _dict(job.get("template"))
            yield from _of_pod(template.get("spec"), "spec.jobTemplate.spec.template.spec")


def _of_pod(spec: Any, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = _dict(spec)
    yield from _of_resources(spec, field)
    if isinstance(spec.get("overhead"), dict):
        yield f"{field}.overhead", spec["overhead"]
    for key in ("containers", "initContainers"):
        containers = spec.get(key)
        for index, container in enumerate(containers if isinstance(containers, list) else []):
            yield from _of_resources(container, f"{field}.{key}[{index}]")


def _of_resources(parent: Any, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    resources = _dict(_dict(parent).get("resources"))
    for key in ("requests", "limits"):
        if isinstance(resources.get(key), dict):
            yield f"{field}.resources.{key}", resources[key]


def _below(body: Body, parent: str, *keys: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in keys:
        found = _dict(body.get(parent)).get(key)
        if isinstance(found, dict):
            yield f"{parent}.{key}", found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
