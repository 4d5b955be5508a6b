"""Containers of a Pod: names, ports, mounts and resources, checked with upstream's messages. Pure.

Source: pkg/apis/core/validation/validation.go (validateContainers, validateContainerPorts, ValidateVolumeMounts,
validateResourceRequirements), Kubernetes 1.36.
"""

from __future__ import annotations

import re
from typing import Any

from nodewright.controllers.admission.fields import Json, child, duplicate, entries, invalid, invalid_each, not_found
from nodewright.framework.webhook.review import Cause
from nodewright.kube import quantity
from nodewright.kube.quantity import QuantityError

_QUANTITY_RULE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_MAX_PORT_NAME = 15


def check_containers(spec: Json, path: str) -> list[Cause]:
    """Faults of the containers of a Pod spec, of both kinds."""
    volumes = {item.get("name") for _, item in entries(spec, "volumes", path)}
    regular = list(entries(spec, "containers", path))
    first = list(entries(spec, "initContainers", path))
    causes = _check_unique([*regular, *first])
    for where, container in [*regular, *first]:
        causes += _check_ports(container, where)
        causes += _check_mounts(container, where, volumes)
        causes += check_resources(child(container, "resources"), f"{where}.resources")
    # Regular containers run together, init containers one by one: each of those may have the host's port for itself.
    causes += _check_host_ports(regular)
    for one in first:
        causes += _check_host_ports([one])
    return causes


def check_volumes(spec: Json, path: str) -> list[Cause]:
    """Volume names used twice. (A volume's source is the dry run's to check: there are thirty kinds.)"""
    return _check_unique(list(entries(spec, "volumes", path)))


def _check_unique(items: list[tuple[str, Json]]) -> list[Cause]:
    seen: set[Any] = set()
    causes: list[Cause] = []
    for where, item in items:
        name = item.get("name")
        if name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)
    return causes


def port_name_faults(name: str) -> list[str]:
    """Why a text is no port name. Upstream: IsValidPortName."""
    rules = (
        (len(name) > _MAX_PORT_NAME, f"must be no more than {_MAX_PORT_NAME} characters"),
        (
            not re.fullmatch(r"[-a-z0-9]+", name),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (not re.search(r"[a-z]", name), "must contain at least one letter (a-z)"),
        ("--" in name, "must not contain consecutive hyphens"),
        (name.startswith("-") or name.endswith("-"), "must not begin or end with a hyphen"),
    )
    return [text for broken, text in rules if broken]


def _check_ports(container: Json, path: str) -> list[Cause]:
    seen: set[str] = set()
    causes: list[Cause] = []
    for where, port in entries(container, "ports", path):
        name = str(port.get("name") or "")
        if not name:
            continue
        if faults := port_name_faults(name):
            causes += invalid_each(f"{where}.name", name, faults)
        elif name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)
    return causes


def _check_host_ports(containers: list[tuple[str, Json]]) -> list[Cause]:
    seen: set[str] = set()
    causes: list[Cause] = []
    for where, container in containers:
        for port_path, port in entries(container, "ports", where):
            number = port.get("hostPort") or 0
            if not number:
                continue
            text = f"{port.get('protocol') or 'TCP'}/{port.get('hostIP') or ''}/{number}"
            if text in seen:
                causes.append(duplicate(f"{port_path}.hostPort", text))
            seen.add(text)
    return causes


def _check_mounts(container: Json, path: str, volumes: set[Any]) -> list[Cause]:
    causes: list[Cause] = []
    points: set[Any] = set()
    for where, mount in entries(container, "volumeMounts", path):
        if mount.get("name") not in volumes:
            causes.append(not_found(f"{where}.name", mount.get("name")))
        point = mount.get("mountPath")
        if point in points:
            causes.append(invalid(f"{where}.mountPath", point, "must be unique"))
        points.add(point)
        if mount.get("subPath") and mount.get("subPathExpr"):
            text = "subPathExpr and subPath are mutually exclusive"
            causes.append(invalid(f"{where}.subPathExpr", mount["subPathExpr"], text))
    return causes


def check_resources(resources: Json, path: str) -> list[Cause]:
    """Faults of a container's requests and limits."""
    causes: list[Cause] = []
    limits, requests = child(resources, "limits"), child(resources, "requests")
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            causes += _check_amount(amount, f"{path}.{kind}[{name}]")
    for name, amount in requests.items():
        if name in limits:
            causes += _check_against_limit(str(name), str(amount), str(limits[name]), f"{path}.requests")
    return causes


def _check_amount(amount: Any, path: str) -> list[Cause]:
    try:
        number = quantity.parse(str(amount))
    except QuantityError:
        return [invalid(path, amount, _QUANTITY_RULE)]
    return [invalid(path, str(amount), "must be greater than or equal to 0")] if number < 0 else []


def _check_against_limit(name: str, request: str, limit: str, path: str) -> list[Cause]:
    try:
        wanted, most = quantity.parse(request), quantity.parse(limit)
    except QuantityError:
        return []  # said already
    if not _is_overcommit_allowed(name) and wanted != most:
        return [invalid(path, request, f"must be equal to {name} limit of {limit}")]
    if wanted > most:
        return [invalid(path, request, f"must be less than or equal to {name} limit of {limit}")]
    return []


def _is_overcommit_allowed(name: str) -> bool:
    """Whether nodes may promise more of a resource than they have; not so for devices and huge pages."""
    native = "/" not in name or "kubernetes.io/" in name
    return native and not name.startswith("hugepages-")
