"""Plugin arguments: decoded strictly, with errors that name the field in upstream's words.

Upstream reports `field: Invalid value: 5: not in valid range [0, 100]` and its like (k8s.io/apimachinery, field.Error).
Plugins collect such sentences with `Faults` and raise them together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

# Type information is allowed around arguments, as in a file for kube-scheduler.
_TYPE_META = ("apiVersion", "kind")

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class Faults:
    """What is wrong with a set of arguments, sentence by sentence."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def invalid(self, field: str, value: object, why: str) -> None:
        """The value is not allowed."""
        self.found.append(f"{field}: Invalid value: {_shown(value)}: {why}")

    def duplicate(self, field: str, value: object) -> None:
        """The value stands there already."""
        self.found.append(f"{field}: Duplicate value: {_shown(value)}")

    def required(self, field: str, why: str) -> None:
        """The field must be given."""
        self.found.append(f"{field}: Required value: {why}")

    def forbidden(self, field: str, why: str) -> None:
        """The field must not be given."""
        self.found.append(f"{field}: Forbidden: {why}")

    def unsupported(self, field: str, value: object, supported: Iterable[str]) -> None:
        """The value is none of those that are known."""
        known = ", ".join(_shown(one) for one in sorted(supported))
        self.found.append(f"{field}: Unsupported value: {_shown(value)}: supported values: {known}")

    def in_range(self, field: str, value: int, low: int, high: int) -> None:
        """The value must lie within the limits."""
        if not low <= value <= high:
            self.invalid(field, value, f"not in valid range [{low}, {high}]")

    def check(self) -> None:
        """Raise ValueError with all that was found, if anything was."""
        if self.found:
            raise ValueError("; ".join(self.found))


def decode(raw: msgspec.Raw, args_type: type[msgspec.Struct]) -> Any:
    """An instance of `args_type`. Raises ValueError, naming the field; one that the type does not have is an error."""
    args = msgspec.json.decode(raw)
    if args is None:
        args = {}
    if isinstance(args, dict):
        args = {key: value for key, value in args.items() if key not in _TYPE_META}
    try:
        decoded = msgspec.convert(args, args_type)
    except msgspec.ValidationError as error:
        raise ValueError(described(error)) from error
    if unknown := _unknown_field(args, msgspec.inspect.type_info(args_type), ""):
        raise ValueError(f"{unknown}: unknown field")
    return decoded


def described(error: msgspec.ValidationError) -> str:
    """The error with its field in front: `a.b[0]: Expected ...` in place of `Expected ... - at $.a.b[0]`."""
    text, found, where = str(error).rpartition(" - at `$")
    path = where.rstrip("`").lstrip(".")
    return f"{path}: {text}" if found and path else (text if found else str(error))


def label_name_fault(name: str) -> str:
    """What keeps a name from being one of a label or resource, "" for nothing (upstream: IsQualifiedName)."""
    prefix, slash, own = name.rpartition("/")
    if slash and not (len(prefix) <= 253 and _PREFIX.fullmatch(prefix)):
        return "prefix part must be a DNS subdomain of at most 253 characters"
    if not _NAME.fullmatch(own):
        return (
            "name part must have 1 to 63 alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character"
        )
    return ""


def _unknown_field(value: Any, kind: msgspec.inspect.Type, path: str) -> str:
    """The path of the first field that the type does not have, "" for none. Lean types would skip such fields."""
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next((k for k in kind.types if not isinstance(k, msgspec.inspect.NoneType)), kind)
    if isinstance(kind, msgspec.inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        for name, inner in value.items():
            where = f"{path}.{name}" if path else name
            if name not in fields:
                return where
            if unknown := _unknown_field(inner, fields[name], where):
                return unknown
    elif isinstance(kind, msgspec.inspect.ListType) and isinstance(value, list):
        for index, inner in enumerate(value):
            if unknown := _unknown_field(inner, kind.item_type, f"{path}[{index}]"):
                return unknown
    elif isinstance(kind, msgspec.inspect.DictType) and isinstance(value, dict):
        for name, inner in value.items():
            if unknown := _unknown_field(inner, kind.value_type, f"{path}[{name}]"):
                return unknown
    return ""


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
