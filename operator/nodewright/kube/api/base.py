"""The base of every API struct: wire names, what is left out, and lists that the server may send as null.

The structs are projections: fields that are not declared are ignored on decode, so an object that was decoded into a
struct must not be written back whole. Patch it, or read it as a dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

# Kubernetes writes initialisms in capitals when they end a name (podIP, but osImage).
_INITIALISMS = {
    "ip": "IP",
    "ips": "IPs",
    "id": "ID",
    "cidr": "CIDR",
    "cidrs": "CIDRs",
    "pid": "PID",
    "ipc": "IPC",
    "uuid": "UUID",
    "fqdn": "FQDN",
    "api": "API",
}


def wire_name(name: str) -> str:
    """Turn a Python field name into the JSON name: `pod_ip` -> `podIP`, `type_` -> `type`."""
    first, *rest = name.rstrip("_").split("_")
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(part.capitalize() for part in middle) + _INITIALISMS.get(last, last.capitalize())


class KubeStruct(msgspec.Struct, rename=wire_name, omit_defaults=True, gc=False):
    """Base of all API structs: camelCase on the wire, default values left out, unknown fields ignored.

    `gc=False` is safe because API objects are trees: nothing in them refers back to its owner.
    """


if TYPE_CHECKING:
    NullableList = list
else:

    class NullableList:
        """`list[T]` that also takes JSON null, for the few Go fields without `omitempty`.

        A struct that uses it calls `no_nulls` in `__post_init__`, so that readers only ever see lists.
        """

        def __class_getitem__(cls, item: Any) -> Any:
            """Give msgspec the type that the wire can carry."""
            return list[item] | None


def no_nulls(obj: msgspec.Struct, *names: str) -> None:
    """Replace None by an empty list in the named fields."""
    for name in names:
        if getattr(obj, name) is None:
            setattr(obj, name, [])


class TopLevel(KubeStruct):
    """Base of objects that have an API endpoint of their own."""

    API_VERSION: ClassVar[str] = ""
    KIND: ClassVar[str] = ""
