from ipaddress import IPv4Address, IPv4Network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube.objects import Node
from nodewright_agent.network.addresses import (
    NetworkError,
    NodeRoute,
    SubnetExhausted,
    candidates,
    gateway,
    host_link,
    mac_of,
    parse_pod_cidr,
    route_changes,
    wanted_routes,
)
from nodewright_agent.network.ipam import AddressPool


def test_candidates_go_round_and_skip_network_gateway_and_broadcast():
    subnet = IPv4Network("10.200.1.0/29")
    assert [str(a) for a in candidates(subnet, None)] == [f"10.200.1.{n}" for n in (2, 3, 4, 5, 6)]
    assert [str(a) for a in candidates(subnet, IPv4Address("10.200.1.4"))] == [f"10.200.1.{n}" for n in (5, 6, 2, 3, 4)]
    assert next(candidates(subnet, IPv4Address("10.200.1.6"))) == IPv4Address("10.200.1.2")
    assert next(candidates(subnet, IPv4Address("10.99.0.4"))) == IPv4Address("10.200.1.2")


@pytest.mark.parametrize("text", ["10.200.0.0/31", "10.200.0.1/24", "nonsense", "fd00::/64", ""])
def test_bad_pod_cidr_is_named(text):
    with pytest.raises(NetworkError, match="pod CIDR"):
        parse_pod_cidr(text)


def test_names_and_macs():
    assert mac_of(IPv4Address("10.200.1.2")) == "0a:58:0a:c8:01:02"
    assert len(host_link("a" * 36)) <= 15
    assert host_link("a") != host_link("b")
    assert gateway(IPv4Network("10.200.1.0/24")) == IPv4Address("10.200.1.1")


def a_node(name, cidr, **addresses):
    listed = [{"type": kind, "address": ip} for kind, ips in addresses.items() for ip in ips.split()]
    document = {"metadata": {"name": name}, "spec": {"podCIDR": cidr}, "status": {"addresses": listed}}
    return msgspec.convert(document, Node)


def test_routes_leave_out_the_own_nodes_and_nodes_that_are_not_ready_for_one():
    nodes = [
        a_node("a", "10.200.0.0/24", InternalIP="10.180.0.11"),
        a_node("b", "10.200.1.0/24", InternalIP="10.180.0.12"),
        a_node("c", "", InternalIP="10.180.0.13"),
        a_node("d", "10.200.3.0/24"),
        a_node("e", "10.200.4.0/24", Hostname="e"),
        a_node("a-too", "10.200.5.0/24", InternalIP="10.180.0.15"),
        a_node("renamed", "10.200.6.0/24", ExternalIP="10.180.0.16"),
        a_node("six", "fd00:6::/64", InternalIP="10.180.0.17"),
    ]
    wanted = wanted_routes(nodes, {"a", "a-too"}, {"127.0.0.1", "10.180.0.16"})
    assert wanted == {NodeRoute("10.200.1.0/24", "10.180.0.12")}


@pytest.mark.parametrize(
    ("addresses", "via"),
    [
        ({"InternalIP": "10.1.0.1", "ExternalIP": "192.0.2.1"}, "10.1.0.1"),
        ({"ExternalIP": "192.0.2.1", "Hostname": "n"}, "192.0.2.1"),
        ({"InternalIP": "fd00::1 10.1.0.1"}, "10.1.0.1"),
    ],
)
def test_the_route_goes_to_the_internal_address_else_to_the_external_one(addresses, via):
    (route,) = wanted_routes([a_node("b", "10.200.1.0/24", **addresses)], {"a"})
    assert route.via == via


def test_route_changes_are_the_difference():
    wanted = [NodeRoute("10.200.1.0/24", "10.180.0.12"), NodeRoute("10.200.2.0/24", "10.180.0.13")]
    present = {"10.200.1.0/24": "10.180.0.99", "10.200.2.0/24": "10.180.0.13", "10.200.9.0/24": "10.180.0.19"}
    assert route_changes(wanted, present) == ([NodeRoute("10.200.1.0/24", "10.180.0.12")], ["10.200.9.0/24"])


def test_pool_survives_its_process_and_ignores_what_is_not_an_assignment(tmp_path):
    subnet = IPv4Network("10.200.1.0/24")
    pool = AddressPool(tmp_path, subnet)
    first = pool.assign("pod-a")
    assert pool.assign("pod-a") == first
    (tmp_path / "junk").write_text("x")
    (tmp_path / "10.9.9.9").write_text("other-subnet")
    (tmp_path / "10.200.1.77").write_text("")
    again = AddressPool(tmp_path, subnet)
    assert again.assignments() == {"pod-a": first}
    assert [entry.name for entry in tmp_path.iterdir()] == [str(first)]
    assert again.assign("pod-b") != first


def test_exhaustion_is_told_and_release_makes_room(tmp_path):
    pool = AddressPool(tmp_path, IPv4Network("10.200.1.0/30"))
    address = pool.assign("a")
    with pytest.raises(SubnetExhausted, match=r"10\.200\.1\.0/30"):
        pool.assign("b")
    pool.release("a")
    pool.release("a")
    assert pool.assign("b") == address


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_no_address_is_ever_given_twice(tmp_path_factory, steps):
    pool = AddressPool(tmp_path_factory.mktemp("ipam"), IPv4Network("10.200.1.0/28"))
    for add, number in steps:
        if add:
            pool.assign(str(number))
        else:
            pool.release(str(number))
        given_out = list(pool.assignments().values())
        assert len(given_out) == len(set(given_out))
