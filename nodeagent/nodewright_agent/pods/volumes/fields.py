"""Fields and resources of a Pod as text: the downward API, for environment variables and volumes. Pure.

Rules of upstream's pkg/fieldpath and pkg/api/v1/resource/helpers.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodewright.kube import quantity
from nodewright.kube.api.volumes import ResourceFieldSelector
from nodewright.kube.objects import Container, Pod

_SUBSCRIPT = re.compile(r"(.+?)\['(.*)'\]\Z", re.DOTALL)
_GO_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
               "\\": "\\\\", '"': '\\"'}  # fmt: skip


class FieldError(ValueError):
    """A fieldRef or resourceFieldRef that cannot be resolved; upstream's text."""


def go_quote(text: str) -> str:
    """Quote as Go's strconv.Quote does; labels and annotations files are written in this form."""
    parts = []
    for char in text:
        code = ord(char)
        if char in _GO_ESCAPES:
            parts.append(_GO_ESCAPES[char])
        elif char.isprintable():
            parts.append(char)
        elif code < 0x80:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(parts) + '"'


def format_map(values: Mapping[str, str]) -> str:
    """`key="value"` lines, sorted by key, without a final newline."""
    return "\n".join(f"{key}={go_quote(values[key])}" for key in sorted(values))


def metadata_field(pod: Pod, path: str) -> str:
    """A `metadata...` field; raises FieldError for any other path."""
    if match := _SUBSCRIPT.match(path):
        base, key = match[1], match[2]
        if base == "metadata.annotations":
            return pod.metadata.annotations.get(key, "")
        if base == "metadata.labels":
            return pod.metadata.labels.get(key, "")
        raise FieldError(f'fieldPath "{path}" does not support subscript')
    simple = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
    }
    if path in simple:
        return simple[path]
    if path == "metadata.annotations":
        return format_map(pod.metadata.annotations)
    if path == "metadata.labels":
        return format_map(pod.metadata.labels)
    raise FieldError(f"unsupported fieldPath: {path}")


def resource_field(
    pod: Pod, selector: ResourceFieldSelector, own: Container | None, allocatable: Mapping[str, str]
) -> str:
    """A container's request or limit in units of the divisor, rounded up.

    `own` is the container that asks, when it may leave containerName out (environment variables). A cpu, memory or
    ephemeral-storage limit that is not set counts as what the node can give (defaultPodLimitsForDownwardAPI).
    """
    container = _find(pod, selector.container_name, own)
    kind, _, resource = selector.resource.partition(".")
    if kind not in ("limits", "requests") or not (
        resource in ("cpu", "memory", "ephemeral-storage") or resource.startswith("hugepages-")
    ):
        raise FieldError(f"unsupported container resource : {selector.resource}")
    values = container.resources.limits if kind == "limits" else container.resources.requests
    text = values.get(resource)
    if text is None and kind == "limits" and not resource.startswith("hugepages-"):
        text = allocatable.get(resource)
    divisor = selector.divisor if selector.divisor and quantity.parse(selector.divisor) else "1"
    # upstream compares milli-units of cpu and whole units of the rest, each rounded up first
    unit = quantity.milli if resource == "cpu" else quantity.value
    return str(-(-unit(text or "0") // unit(divisor)))


def _find(pod: Pod, name: str, own: Container | None) -> Container:
    if not name and own is not None:
        return own
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        if container.name == name:
            return container
    raise FieldError(f"container {name} not found")
