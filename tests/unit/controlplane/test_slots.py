from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controlplane import slots
from nodewright.controlplane.errors import PreconditionError, UsageError


@pytest.mark.parametrize("name", ["a", "default", "a-1", "0", "x" * 20])
def test_good_names(name: str) -> None:
    assert slots.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "../x", "a/b", "x" * 21, "ä", "a\n", "hosts"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError) as error:
        slots.check_name(name)
    assert error.value.exit_code == 2
    assert error.value.hint


@pytest.mark.parametrize(("count", "good"), [(-1, False), (0, True), (100, True), (101, False)])
def test_node_counts(count: int, good: bool) -> None:
    if good:
        assert slots.check_nodes(count) == count
    else:
        with pytest.raises(UsageError):
            slots.check_nodes(count)


def test_node_names_and_addresses() -> None:
    slot = slots.Slot(3)
    assert slot.gateway == "10.180.3.1"
    assert slot.bridge == "nwb3"
    assert slot.node("default", 1) == slots.NodeHost(1, "node1", "nw-default-node1", "10.180.3.11")
    assert slot.node("dev", 2) == slots.NodeHost(2, "dev-node2", "nw-dev-node2", "10.180.3.12")


@pytest.mark.parametrize(
    ("taken", "routes", "expected"),
    [
        ([], [], 0),
        ([0, 1], [], 2),
        ([], ["10.180.0.0/24"], 1),
        ([], ["10.200.7.0/24"], 1),
        ([], ["10.180.0.0/22"], 4),
        ([0], ["10.201.0.0/16"], 2),
        ([], ["0.0.0.0/0", "192.168.0.0/16"], 0),
    ],
)
def test_first_free_slot(taken: list[int], routes: list[str], expected: int) -> None:
    assert slots.choose_slot(taken, map(IPv4Network, routes)).number == expected


def test_no_slot_left() -> None:
    with pytest.raises(PreconditionError):
        slots.choose_slot([], [IPv4Network("10.0.0.0/8")])


@given(st.integers(0, slots.SLOTS - 1), st.integers(0, slots.SLOTS - 1))
def test_slots_never_overlap(one: int, other: int) -> None:
    first, second = slots.Slot(one), slots.Slot(other)
    assert first.node_cidr.overlaps(second.node_cidr) == (one == other)
    assert first.pod_cidr.overlaps(second.pod_cidr) == (one == other)
    assert not first.pod_cidr.overlaps(second.node_cidr)
    assert not first.pod_cidr.overlaps(slots.SERVICE_CIDR)


def test_routes_of_the_kernel() -> None:
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "nwb0\t0000B40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert slots.parse_routes(table) == [
        ("eth0", IPv4Network("0.0.0.0/0")),
        ("nwb0", IPv4Network("10.180.0.0/24")),
    ]
