"""Faults of fields in upstream's words (apimachinery, pkg/util/validation/field/errors.go), and reading JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from nodewright.framework.webhook.review import Cause

Json = dict[str, Any]


def required(field: str, detail: str = "") -> Cause:
    """The field must have a value."""
    return _cause(field, "FieldValueRequired", "Required value", detail)


def forbidden(field: str, detail: str) -> Cause:
    """The field may not have a value here."""
    return _cause(field, "FieldValueForbidden", "Forbidden", detail)


def invalid(field: str, value: Any, detail: str) -> Cause:
    """The value breaks a rule, which `detail` gives."""
    return _cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}", detail)


def duplicate(field: str, value: Any) -> Cause:
    """The value was used before where it must be unique."""
    return _cause(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def not_found(field: str, value: Any) -> Cause:
    """The value names something that is not there."""
    return _cause(field, "FieldValueNotFound", f"Not found: {_shown(value)}")


def not_supported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    """The value is none of those that are known."""
    known = ", ".join(_shown(name) for name in sorted(supported))
    return _cause(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}", f"supported values: {known}")


def invalid_each(field: str, value: Any, details: Iterable[str]) -> list[Cause]:
    """One fault per broken rule."""
    return [invalid(field, value, detail) for detail in details]


def child(obj: Json, *names: str) -> Json:
    """The object at a path of names; empty where something on the way is absent."""
    for name in names:
        found = obj.get(name)
        obj = found if isinstance(found, dict) else {}
    return obj


def entries(obj: Json, name: str, path: str) -> Iterator[tuple[str, Json]]:
    """The objects of a list, each with its field path: `("spec.containers[0]", {...})`."""
    found = obj.get(name)
    for index, item in enumerate(found if isinstance(found, list) else ()):
        if isinstance(item, dict):
            yield f"{path}.{name}[{index}]", item


def same(one: Json, other: Json) -> bool:
    """Whether two JSON objects say the same. (A comparison in Python would take 1, 1.0 and true for one value.)"""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _cause(field: str, reason: str, what: str, detail: str = "") -> Cause:
    return Cause(field, f"{what}: {detail}" if detail else what, reason)


def _shown(value: Any) -> str:
    """A value as Go's %q or its JSON encoder would show it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
