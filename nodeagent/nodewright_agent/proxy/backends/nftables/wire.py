"""nf_tables messages: tables, chains, sets, rules and batches. Encoding only.

Written after linux/netfilter/nf_tables.h. Numbers in nf_tables attributes are big endian, register contents are not.
"""

from __future__ import annotations

import struct

from nodewright_agent.proxy.netlink import NLM_F_CREATE, attr, nested, string

NFNL_SUBSYS = 10 << 8
BATCH_BEGIN = 0x10
BATCH_END = 0x11

(
    NEWTABLE,
    GETTABLE,
    DELTABLE,
    NEWCHAIN,
    GETCHAIN,
    DELCHAIN,
    NEWRULE,
    GETRULE,
    DELRULE,
    NEWSET,
    GETSET,
    DELSET,
    NEWSETELEM,
    GETSETELEM,
    DELSETELEM,
    NEWGEN,
    GETGEN,
) = range(17)

NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10

SET_INTERVAL = 0x4
SET_MAP = 0x8
SET_TIMEOUT = 0x10
SET_EVAL = 0x20
SET_CONCAT = 0x80

DATA_VERDICT_TYPE = 0xFFFFFF00
VERDICT_DROP = 0
VERDICT_ACCEPT = 1
VERDICT_JUMP = -3
VERDICT_GOTO = -4

HOOK_PREROUTING, HOOK_INPUT, HOOK_FORWARD, HOOK_OUTPUT, HOOK_POSTROUTING = range(5)

_U32 = struct.Struct(">I")
_I32 = struct.Struct(">i")
_U64 = struct.Struct(">Q")
_NFGEN = struct.Struct("=BBH")


def u32(kind: int, value: int) -> bytes:
    """Encode a big-endian 32-bit attribute."""
    return attr(kind, _U32.pack(value & 0xFFFFFFFF))


def i32(kind: int, value: int) -> bytes:
    """Encode a signed big-endian 32-bit attribute."""
    return attr(kind, _I32.pack(value))


def u64(kind: int, value: int) -> bytes:
    """Encode a big-endian 64-bit attribute."""
    return attr(kind, _U64.pack(value))


def nfgen(family: int, resource: int = 0) -> bytes:
    """Encode the netfilter header: address family and, big endian, a resource id."""
    return _NFGEN.pack(family, 0, ((resource & 0xFF) << 8) | (resource >> 8))


BATCH_HEADER = nfgen(0, 10)


def comment(kind: int, text: str, tag: int = 0) -> bytes:
    """Encode the comment of a table, chain, rule or element (tag 0) or set (tag 7) as nft's user data."""
    value = text.encode()[:127] + b"\0"
    return attr(kind, bytes((tag, len(value))) + value)


class Op:
    """One message of a transaction: its type, flags and payload."""

    __slots__ = ("flags", "kind", "payload", "what")

    def __init__(self, kind: int, flags: int, payload: bytes, what: str) -> None:
        """Hold the parts; `what` says for a person what the message does."""
        self.kind, self.flags, self.payload, self.what = kind, flags, payload, what


def new_table(family: int, table: str, text: str) -> Op:
    """Create a table where it is missing."""
    payload = nfgen(family) + string(1, table) + comment(6, text)
    return Op(NEWTABLE, NLM_F_CREATE, payload, f"create table {table}")


def delete_table(family: int, table: str) -> Op:
    """Delete a table and all that is in it."""
    return Op(DELTABLE, 0, nfgen(family) + string(1, table), f"delete table {table}")


def new_chain(family: int, table: str, name: str, text: str = "") -> Op:
    """Create a chain that others go to."""
    payload = nfgen(family) + string(1, table) + string(3, name)
    if text:
        payload += comment(12, text)
    return Op(NEWCHAIN, NLM_F_CREATE, payload, f"create chain {name}")


def new_base_chain(family: int, table: str, name: str, kind: str, hook: int, priority: int) -> Op:
    """Create a chain at a hook; kind is "nat" or "filter"."""
    place = nested(4, u32(1, hook), i32(2, priority))
    payload = nfgen(family) + string(1, table) + string(3, name) + place + string(7, kind)
    return Op(NEWCHAIN, NLM_F_CREATE, payload, f"create chain {name}")


def delete_chain(family: int, table: str, name: str) -> Op:
    """Delete an empty chain that nothing refers to."""
    return Op(DELCHAIN, 0, nfgen(family) + string(1, table) + string(3, name), f"delete chain {name}")


def flush_chain(family: int, table: str, name: str) -> Op:
    """Delete all rules of a chain."""
    return Op(DELRULE, 0, nfgen(family) + string(1, table) + string(2, name), f"flush chain {name}")


def new_rule(family: int, table: str, chain: str, *expressions: bytes, text: str = "") -> Op:
    """Append a rule."""
    payload = nfgen(family) + string(1, table) + string(2, chain) + nested(4, *expressions)
    if text:
        payload += comment(7, text)
    return Op(NEWRULE, NLM_F_CREATE | 0x800, payload, f"add rule to {chain}")


class SetSpec:
    """A set or map: its name, types and flags."""

    def __init__(
        self,
        name: str,
        key_types: tuple[int, ...],
        key_length: int,
        *,
        data_types: tuple[int, ...] = (),
        data_length: int = 0,
        verdict: bool = False,
        interval_fields: tuple[int, ...] = (),
        timeout: int = 0,
        size: int = 0,
        counter: bool = False,
        text: str = "",
    ) -> None:
        """Describe a set.

        `interval_fields`: lengths of the fields where elements are ranges. `timeout`: milliseconds; such a map is
        written by packets, holds at most `size` elements and forgets them. `counter`: every element counts packets.
        """
        self.name, self.key_types, self.key_length = name, key_types, key_length
        self.data_types, self.data_length, self.verdict = data_types, data_length, verdict
        self.interval_fields, self.timeout, self.size = interval_fields, timeout, size
        self.counter, self.text = counter, text

    @property
    def flags(self) -> int:
        """The kernel's flags."""
        flags = SET_MAP if self.verdict or self.data_types else 0
        if self.interval_fields:
            flags |= SET_INTERVAL | (SET_CONCAT if len(self.interval_fields) > 1 else 0)
        if self.timeout:
            flags |= SET_TIMEOUT | SET_EVAL
        return flags


def concat_type(types: tuple[int, ...]) -> int:
    """Give nft's number for a concatenation: six bits for each part."""
    number = 0
    for kind in types:
        number = number << 6 | kind
    return number


def new_set(family: int, table: str, spec: SetSpec, number: int) -> Op:
    """Create a set; `number` is unique within the transaction."""
    parts = [
        nfgen(family),
        string(1, table),
        string(2, spec.name),
        u32(3, spec.flags),
        u32(4, concat_type(spec.key_types)),
        u32(5, spec.key_length),
        u32(10, number),
    ]
    if spec.verdict:
        parts += [u32(6, DATA_VERDICT_TYPE), u32(7, 0)]
    elif spec.data_types:
        parts += [u32(6, concat_type(spec.data_types)), u32(7, spec.data_length)]
    description = b""
    if spec.size:
        description += u32(1, spec.size)
    if len(spec.interval_fields) > 1:
        description += nested(2, *(nested(1, u32(1, length)) for length in spec.interval_fields))
    if description:
        parts.append(nested(9, description))
    if spec.timeout:
        parts.append(u64(11, spec.timeout))
    user_data = (
        struct.pack("=BBI", 0, 4, 2) if spec.interval_fields else b""
    )  # keys are big endian, else ranges print wrong
    if spec.text:
        value = spec.text.encode() + b"\0"
        user_data += bytes((7, len(value))) + value
    if user_data:
        parts.append(attr(13, user_data))
    if spec.counter:
        parts.append(nested(17, string(1, "counter"), nested(2, u64(1, 0), u64(2, 0))))
    return Op(NEWSET, NLM_F_CREATE, b"".join(parts), f"create set {spec.name}")


def delete_set(family: int, table: str, name: str) -> Op:
    """Delete a set that nothing refers to."""
    return Op(DELSET, 0, nfgen(family) + string(1, table) + string(2, name), f"delete set {name}")
