"""Set elements: encoding in bulk, and decoding of dumps.

A full load has 100,000 of them, so everything but key and data is encoded once per kind of element.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from nodewright_agent.proxy.backends.nftables.wire import (
    DELSETELEM,
    NEWSETELEM,
    Op,
    comment,
    i32,
    nfgen,
    u32,
    u64,
)
from nodewright_agent.proxy.netlink import NLM_F_CREATE, attr, attributes, nested, string, text_of

_LIST_LIMIT = 60_000
"""Bytes of elements in one message: the length of an attribute is 16 bits wide."""
_INTERVAL_END = 1


class Jump(NamedTuple):
    """The data of a verdict map's element."""

    code: int
    chain: str


class Element(NamedTuple):
    """An element of the set named `set`; `data` is None for sets, bytes for maps, a Jump for verdict maps."""

    set: str
    key: bytes
    data: bytes | Jump | None = None
    comment: str = ""
    key_end: bytes = b""
    """Last key of a range, for concatenations of ranges."""


@lru_cache(maxsize=64)
def _frame(key_length: int, data_length: int) -> tuple[bytes, bytes]:
    """Give what stands before the key, and between key and data (lengths are multiples of four)."""
    data = data_length + 8 if data_length else 0
    head = struct.pack("=HHHHHH", 4 + key_length + 8 + data, 0x8001, key_length + 8, 0x8001, key_length + 4, 1)
    middle = struct.pack("=HHHH", data_length + 8, 0x8002, data_length + 4, 1) if data_length else b""
    return head, middle


@lru_cache(maxsize=4096)
def _verdict(jump: Jump) -> bytes:
    return nested(2, nested(2, i32(1, jump.code), string(2, jump.chain)))


def encode(element: Element) -> bytes:
    """Encode an element for creation."""
    key, data = element.key, element.data
    if type(data) is bytes:
        head, middle = _frame(len(key), len(data))
        return head + key + middle + data
    parts = [nested(1, attr(1, key))]
    if element.key_end:
        parts.append(nested(10, attr(1, element.key_end)))
    if isinstance(data, Jump):
        parts.append(_verdict(data))
    if element.comment:
        parts.append(comment(6, element.comment))
    return nested(1, *parts)


def encode_key(element: Element) -> bytes:
    """Encode an element for deletion."""
    if element.key_end:
        return nested(1, nested(1, attr(1, element.key)), nested(10, attr(1, element.key_end)))
    return _frame(len(element.key), 0)[0] + element.key


def encode_range(first: bytes, end: bytes | None) -> list[bytes]:
    """Encode a range of a plain interval set: its first key, and where it is not open, the first key beyond it."""
    parts = [nested(1, nested(1, attr(1, first)))]
    if end is not None:
        parts.append(nested(1, nested(1, attr(1, end)), u32(3, _INTERVAL_END)))
    return parts


def encode_memory(key: bytes, data: bytes, timeout: int, expires: int) -> bytes:
    """Encode an element that the kernel forgets after `expires` milliseconds, of `timeout`."""
    return nested(1, nested(1, attr(1, key)), nested(2, attr(1, data)), u64(4, timeout), u64(5, expires))


def _messages(kind: int, flags: int, family: int, table: str, name: str, encoded: Iterable[bytes]) -> Iterator[Op]:
    head = nfgen(family) + string(1, table) + string(2, name)
    verb = "add to" if kind == NEWSETELEM else "delete from"
    pending: list[bytes] = []
    size = 0
    for item in encoded:
        if size + len(item) > _LIST_LIMIT:
            yield Op(kind, flags, head + nested(3, *pending), f"{verb} {name}")
            pending, size = [], 0
        pending.append(item)
        size += len(item)
    if pending:
        yield Op(kind, flags, head + nested(3, *pending), f"{verb} {name}")


def add(family: int, table: str, name: str, encoded: Iterable[bytes]) -> Iterator[Op]:
    """Give the messages that create encoded elements in one set."""
    return _messages(NEWSETELEM, NLM_F_CREATE, family, table, name, encoded)


def remove(family: int, table: str, name: str, encoded: Iterable[bytes]) -> Iterator[Op]:
    """Give the messages that delete encoded keys from one set."""
    return _messages(DELSETELEM, 0, family, table, name, encoded)


class Dumped(NamedTuple):
    """An element as the kernel has it."""

    key: bytes
    data: bytes | Jump | None
    packets: int
    size: int
    expires: int
    """Milliseconds left, 0 where the element stays."""
    key_end: bytes
    """The last key of a range of a concatenation."""


_COUNTER = struct.Struct(">Q")


def decode(payload: bytes) -> Iterator[Dumped]:
    """Give the elements in one message of a dump."""
    listed = attributes(payload, 4).get(3, b"")
    offset = 0
    while offset + 4 <= len(listed):
        size = struct.unpack_from("=H", listed, offset)[0]
        yield _decode_one(attributes(listed[offset + 4 : offset + size]))
        offset += (size + 3) & ~3


def _decode_one(parts: dict[int, bytes]) -> Dumped:
    key = attributes(parts[1]).get(1, b"")
    key_end = attributes(parts[10]).get(1, b"") if 10 in parts else b""
    data: bytes | Jump | None = None
    if 2 in parts:
        value = attributes(parts[2])
        if 1 in value:
            data = value[1]
        else:
            verdict = attributes(value[2])
            code = struct.unpack(">i", verdict[1])[0]
            data = Jump(code, text_of(verdict.get(2, b"")))
    packets = size = 0
    if 7 in parts:
        counter = attributes(attributes(parts[7]).get(2, b""))
        size = _COUNTER.unpack(counter[1])[0] if 1 in counter else 0
        packets = _COUNTER.unpack(counter[2])[0] if 2 in counter else 0
    expires = _COUNTER.unpack(parts[5])[0] if 5 in parts else 0
    return Dumped(key, data, packets, size, expires, key_end)
