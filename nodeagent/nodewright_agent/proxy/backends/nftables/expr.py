"""nf_tables expressions: the instructions that rules are made of. Encoding only.

Registers are the 32-bit ones: number 8 is the first. A concatenation is a run of registers, each part rounded up to
four bytes.
"""

from __future__ import annotations

import struct

from nodewright_agent.proxy.backends.nftables.wire import VERDICT_DROP, VERDICT_GOTO, VERDICT_JUMP, i32, u32, u64
from nodewright_agent.proxy.netlink import attr, nested, string

R0 = 8
"""The first 32-bit register."""
VERDICT = 0
"""The register whose content decides about the packet."""

_CMP_EQ, _CMP_NEQ = 0, 1
_CT_STATE, _CT_STATUS, _CT_PROTO_DST, _CT_DST_IP, _CT_DST_IP6 = 0, 2, 12, 20, 22
CT_STATE_INVALID, CT_STATE_NEW, CT_STATUS_DNAT = 1, 8, 0x20
_META_L4PROTO = 16
_RTN_LOCAL = 2


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, string(1, name), nested(2, *parts))


def payload(register: int, base: int, offset: int, length: int) -> bytes:
    """Load bytes of a header; base 1 is the network header, 2 the transport header."""
    return _expression("payload", u32(1, register), u32(2, base), u32(3, offset), u32(4, length))


def l4proto(register: int) -> bytes:
    """Load the transport protocol."""
    return _expression("meta", u32(1, register), u32(2, _META_L4PROTO))


def compare(register: int, value: bytes, *, equal: bool = True) -> bytes:
    """Stop the rule unless the register holds (or holds not) this value."""
    return _expression("cmp", u32(1, register), u32(2, _CMP_EQ if equal else _CMP_NEQ), nested(3, attr(1, value)))


def ct_bits(register: int, key: int, mask: int) -> bytes:
    """Stop the rule unless one of these bits of a 32-bit conntrack field is set (host byte order)."""
    native = struct.pack("=I", mask)
    zero = b"\0\0\0\0"
    return (
        _expression("ct", u32(1, register), u32(2, key))
        + _expression(
            "bitwise",
            u32(1, register),
            u32(2, register),
            u32(3, 4),
            nested(4, attr(1, native)),
            nested(5, attr(1, zero)),
        )
        + compare(register, zero, equal=False)
    )


def ct_state(mask: int) -> bytes:
    """Stop the rule unless the connection is in one of these states."""
    return ct_bits(R0, _CT_STATE, mask)


def ct_translated() -> bytes:
    """Stop the rule unless the destination of the connection was translated."""
    return ct_bits(R0, _CT_STATUS, CT_STATUS_DNAT)


def _ct_original(register: int, key: int) -> bytes:
    return _expression("ct", u32(1, register), u32(2, key), attr(3, b"\0"))


def original_destination(register: int, address_length: int) -> bytes:
    """Load where the client thought to connect to, as destination()."""
    address = _CT_DST_IP6 if address_length == 16 else _CT_DST_IP
    after = register + address_length // 4
    return _ct_original(register, address) + l4proto(after) + _ct_original(after + 1, _CT_PROTO_DST)


def source_address(register: int, address_length: int) -> bytes:
    """Load the source address."""
    return payload(register, 1, 8 if address_length == 16 else 12, address_length)


def destination_address(register: int, address_length: int) -> bytes:
    """Load the destination address."""
    return payload(register, 1, 24 if address_length == 16 else 16, address_length)


def destination_port(register: int) -> bytes:
    """Load the destination port of TCP, UDP or SCTP."""
    return payload(register, 2, 2, 2)


def destination(register: int, address_length: int) -> bytes:
    """Load destination address, protocol and destination port."""
    after = register + address_length // 4
    return destination_address(register, address_length) + l4proto(after) + destination_port(after + 1)


def random_slot(register: int, count: int) -> bytes:
    """Load a random number below count."""
    return _expression("numgen", u32(1, register), u32(2, count), u32(3, 1), u32(4, 0))


def lookup(name: str, register: int, into: int | None = None, *, absent: bool = False) -> bytes:
    """Stop the rule unless a set has the key in the registers (or with `absent`, has it not).

    With `into` the set is a map, and what it has goes to that register (VERDICT for verdict maps).
    """
    parts = [string(1, name), u32(2, register)]
    if into is not None:
        parts.append(u32(3, into))
    if absent:
        parts.append(u32(5, 1))
    return _expression("lookup", *parts)


def dnat(family: int, address: int, port: int) -> bytes:
    """Translate the destination to what is in these registers."""
    return _expression("nat", u32(1, 1), u32(2, family), u32(3, address), u32(5, port))


def masquerade() -> bytes:
    """Translate the source to the outgoing link's address, with a random port (upstream: fully-random)."""
    return _expression("masq", u32(1, 0x10))


def counter() -> bytes:
    """Count packets and bytes."""
    return _expression("counter", u64(1, 0), u64(2, 0))


def verdict(code: int, chain: str = "") -> bytes:
    """Decide about the packet, or go on in another chain."""
    parts = [i32(1, code)]
    if chain:
        parts.append(string(2, chain))
    return _expression("immediate", u32(1, VERDICT), nested(2, nested(2, *parts)))


def jump(chain: str) -> bytes:
    """Go on in another chain, and come back."""
    return verdict(VERDICT_JUMP, chain)


def goto(chain: str) -> bytes:
    """Go on in another chain for good."""
    return verdict(VERDICT_GOTO, chain)


def drop() -> bytes:
    """Drop the packet."""
    return verdict(VERDICT_DROP)


def source_is_local(*, negate: bool = False) -> bytes:
    """Stop the rule unless the source is (or with `negate`, is not) an address of this node."""
    type_of_source = _expression("fib", u32(1, R0), u32(2, 3), u32(3, 1))
    return type_of_source + compare(R0, struct.pack("=I", _RTN_LOCAL), equal=not negate)


def reject_unreachable(family_is_ipv6: bool) -> bytes:
    """Answer with ICMP port unreachable."""
    return _expression("reject", u32(1, 0), attr(2, b"\x04" if family_is_ipv6 else b"\x03"))


def remember(name: str, key: int, data: int, timeout: int) -> bytes:
    """Write key and data of these registers into a map, for so many milliseconds from now."""
    return _expression("dynset", string(1, name), u32(3, 1), u32(4, key), u32(5, data), u64(6, timeout))
