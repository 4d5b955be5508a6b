"""Bytes on the wire, against bytes that kernels have accepted."""

from __future__ import annotations

import struct

import pytest

from nodewright_agent.proxy import conntrack, netlink
from nodewright_agent.proxy.backends.ipvs import wire as ipvs
from nodewright_agent.proxy.backends.nftables import expr
from nodewright_agent.proxy.backends.nftables import wire as nft
from nodewright_agent.proxy.backends.nftables.elements import Element, Jump, decode, encode, encode_key
from nodewright_agent.proxy.backends.nftables.monitor import foreign_change
from nodewright_agent.proxy.model import Frontend, Kind, endpoint, frontend_key, pack_address

KEY = frontend_key(pack_address("10.96.0.1"), 6, 443)
KEY6 = frontend_key(pack_address("fd00:96::1"), 17, 53)
END, END6 = endpoint(pack_address("10.2.0.2"), 8080), endpoint(pack_address("fd00:2::2"), 8080)


def text(data: bytes) -> str:
    """Hex in groups of four bytes."""
    return data.hex(" ", -4)


def test_attributes_are_padded() -> None:
    assert netlink.attr(3, b"abcde").hex() == "09000300" + "6162636465" + "000000"
    assert netlink.nested(1, netlink.attr(2, b"x")).hex() == "0c000180" + "05000200" + "78000000"


def test_messages_survive_a_round_trip() -> None:
    data = netlink.message(5, 1, 7, b"abcde") + netlink.message(6, 2, 8, b"")
    assert [(m.type, m.flags, m.seq, m.payload) for m in netlink.messages(data)] == [
        (5, 1, 7, b"abcde"),
        (6, 2, 8, b""),
    ]


@pytest.mark.parametrize("cut", range(40))
def test_cut_off_input_is_no_error(cut: int) -> None:
    data = netlink.message(5, 1, 7, netlink.attr(1, b"abcdefgh"))[:cut]
    for item in netlink.messages(data):
        netlink.attributes(item.payload)


def test_ipvs_service() -> None:
    # family, protocol, address, port; scheduler "rr", flags with mask, timeout, mask
    assert text(ipvs.service(KEY, ipvs.Service("rr"))) == (
        "48000180 06000100 02000000 06000200 06000000 08000300 0a600001 06000400 01bb0000"
        " 07000600 72720000 0c000700 00000000 ffffffff 08000800 00000000 08000900 ffffffff"
    )
    assert ipvs.service(KEY, ipvs.Service("rr", ipvs.PERSISTENT, 10800)).hex().count("302a0000") == 1
    # for IPv6 the mask is a prefix length
    assert ipvs.service(KEY6, ipvs.Service("rr")).endswith(struct.pack("=HHI", 8, 9, 128))


def test_ipvs_destination() -> None:
    assert text(ipvs.destination(END, 1)) == (
        "3c000280 08000100 0a020002 06000200 1f900000 06000b00 02000000 08000300 00000000"
        " 08000400 01000000 08000500 00000000 08000600 00000000"
    )
    assert text(ipvs.destination_key(END6)).startswith("28000280 14000100 fd000002")


def test_ipvs_dumps_are_read() -> None:
    header = struct.pack("=BBH", 1, 1, 0)
    settings = ipvs.Service("rr", ipvs.PERSISTENT, 300)
    for key in (KEY, KEY6):
        assert ipvs.decode_service(header + ipvs.service(key, settings)) == (key, settings)
    hashed = ipvs.service(KEY, ipvs.Service("rr", ipvs.HASHED))
    assert ipvs.decode_service(header + hashed) == (KEY, ipvs.Service("rr"))
    for packed in (END, END6):
        found = ipvs.decode_destination(header + ipvs.destination(packed, 3))
        assert found is not None
        assert found[0] == packed
        assert found[1].weight == 3
        assert found[1].idle
    by_mark = header + netlink.nested(1, netlink.attr(5, b"\1\0\0\0"))
    assert ipvs.decode_service(by_mark) is None


def test_nftables_elements() -> None:
    value = Element("endpoints", bytes(16), END + b"\0\0")
    assert text(encode(value)) == (
        "2c000180 18000180 14000100 00000000 00000000 00000000 00000000 10000280 0c000100 0a020002 1f900000"
    )
    assert text(encode_key(value)) == "1c000180 18000180 14000100 00000000 00000000 00000000 00000000"
    jump = Element("frontends", bytes(12), Jump(nft.VERDICT_GOTO, "pick-2"), "ns/a:x")
    assert text(encode(jump)) == (
        "44000180 14000180 10000100 00000000 00000000 00000000"
        " 1c000280 18000280 08000100 fffffffc 0b000200 7069636b 2d320000 0d000600 00076e73 2f613a78 00000000"
    )


def test_nftables_elements_are_read_back() -> None:
    listed = [
        Element("s", bytes(12), Jump(nft.VERDICT_JUMP, "masquerade-always"), "ns/a:x"),
        Element("s", b"\1" * 12, END + b"\0\0"),
        Element("s", b"\2" * 16, key_end=b"\3" * 16),
    ]
    payload = nft.nfgen(2) + netlink.nested(3, *map(encode, listed))
    assert [(d.key, d.data, d.key_end) for d in decode(payload)] == [(e.key, e.data, e.key_end) for e in listed]


def test_nftables_expressions() -> None:
    assert text(expr.payload(8, 1, 16, 4)) == (
        "34000180 0c000100 7061796c 6f616400 24000280 08000100 00000008 08000200 00000001 08000300 00000010"
        " 08000400 00000004"
    )
    assert text(expr.goto("x")) == (
        "38000180 0e000100 696d6d65 64696174 65000000 24000280 08000100 00000000 18000280 14000280"
        " 08000100 fffffffc 06000200 78000000"
    )


def test_nftables_batches_begin_with_their_subsystem() -> None:
    assert nft.BATCH_HEADER.hex() == "0000000a"
    assert nft.nfgen(nft.NFPROTO_IPV6).hex() == "0a000000"


def test_concatenated_types_are_numbered_as_nft_does() -> None:
    assert nft.concat_type((7, 12, 13)) == 0x730D
    assert nft.concat_type((7,)) == 7


def test_foreign_changes_are_told_apart() -> None:
    def note(kind: int, table: str, subsystem: int = 10) -> netlink.Message:
        return netlink.Message(subsystem << 8 | kind, 0, 0, 1, nft.nfgen(2) + netlink.string(1, table))

    assert foreign_change(note(nft.DELTABLE, "ours"), "ours") == "table deleted"
    assert foreign_change(note(nft.DELRULE, "theirs"), "ours") is None
    assert foreign_change(note(nft.NEWGEN, "ours"), "ours") is None
    assert foreign_change(note(nft.DELTABLE, "ours", 1), "ours") is None


def _flow(source: str, destination: str, port: int, backend: str, backend_port: int, protocol: int = 17) -> bytes:
    def side(kind: int, first: str, second: str, ports: tuple[int, int]) -> bytes:
        addresses = netlink.attr(1, pack_address(first)) + netlink.attr(2, pack_address(second))
        numbers = netlink.attr(1, bytes((protocol,)))
        numbers += b"".join(netlink.attr(n, struct.pack("!H", p)) for n, p in zip((2, 3), ports, strict=True))
        return netlink.nested(kind, netlink.nested(1, addresses), netlink.nested(2, numbers))

    original = side(1, source, destination, (5000, port))
    reply = side(2, backend, source, (backend_port, 5000))
    return struct.pack("=BBH", 2, 0, 0) + original + reply + netlink.attr(12, b"\0\0\0\1")


def test_stale_flows_are_recognised() -> None:
    key = frontend_key(pack_address("10.96.0.1"), 17, 53)
    frontend = Frontend(Kind.CLUSTER_IP, "ns/dns", (END,), serving=(END,))
    good = conntrack.decode(_flow("10.1.0.2", "10.96.0.1", 53, "10.2.0.2", 8080), ipv6=False)
    gone = conntrack.decode(_flow("10.1.0.2", "10.96.0.1", 53, "10.2.0.9", 8080), ipv6=False)
    untranslated = conntrack.decode(_flow("10.1.0.2", "10.96.0.1", 53, "10.96.0.1", 53), ipv6=False)
    other = conntrack.decode(_flow("10.1.0.2", "10.96.0.7", 53, "10.2.0.9", 8080), ipv6=False)
    assert good is not None
    assert good.frontend == key
    assert [conntrack.stale(flow, {key: frontend}) for flow in (good, gone, untranslated, other) if flow] == [
        False,
        True,
        True,
        False,
    ]
    assert gone is not None
    assert not conntrack.stale(gone, {key: frontend._replace(serving=())}), "there is nothing better to do with them"
    assert conntrack.decode(_flow("10.1.0.2", "10.96.0.1", 53, "10.2.0.2", 8080, 6), ipv6=False) is None
