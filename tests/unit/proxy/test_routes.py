"""Routes to agents' pods: what is set, what is left alone, and what is said where the kernel refuses."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import pytest

from nodewright.kube.objects import Node
from nodewright_agent.network.addresses import NodeRoute
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.proxy.hostaddresses import within
from nodewright_agent.proxy.metrics import ProxyMetrics
from nodewright_agent.proxy.proxy import node_view
from nodewright_agent.proxy.routes import NodeRoutes
from nodewright_agent.proxy.routetable import Foreign, RouteTable


def node(name: str, cidr: str = "", **addresses: str) -> Node:
    document = {
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z"}},
        "spec": {"podCIDR": cidr},
        "status": {"addresses": [{"type": kind, "address": ip} for kind, ip in addresses.items()]},
    }
    return msgspec.convert(document, Node)


class Table(RouteTable):
    """Routes in memory, some of them refused."""

    def __init__(self, refused: dict[str, OSError] | None = None) -> None:
        self.routes: dict[str, str] = {}
        self.refused = refused or {}

    def present(self) -> dict[str, str]:
        return dict(self.routes)

    def addresses(self) -> frozenset[str]:
        return frozenset({"10.0.0.1"})

    def set(self, route: NodeRoute, *, replace: bool) -> None:
        if route.subnet in self.refused:
            raise self.refused[route.subnet]
        assert replace == (route.subnet in self.routes)
        self.routes[route.subnet] = route.via

    def delete(self, subnet: str) -> None:
        del self.routes[subnet]


@pytest.fixture
def metrics() -> ProxyMetrics:
    return ProxyMetrics()


@pytest.fixture
def routes(metrics: ProxyMetrics) -> NodeRoutes:
    nothing: Any = None  # the Nodes are given by hand here
    return NodeRoutes(nothing, frozenset({"here", "here-nodewright"}), metrics, failed=lambda text: None)


def test_routes_follow_the_nodes(routes: NodeRoutes) -> None:
    table = Table()
    there, new = node("b", "10.1.2.0/24", ExternalIP="10.0.0.2"), node("c", "10.1.3.0/24", InternalIP="10.0.0.3")
    own = node("here-nodewright", "10.1.1.0/24", ExternalIP="10.0.0.1")
    assert routes.sync(table, [there, own]) == []
    assert table.routes == {"10.1.2.0/24": "10.0.0.2"}
    routes.sync(table, [there, own, new])
    moved = node("b", "10.1.2.0/24", ExternalIP="10.0.0.9")
    routes.sync(table, [moved, new])
    assert table.routes == {"10.1.2.0/24": "10.0.0.9", "10.1.3.0/24": "10.0.0.3"}
    routes.sync(table, [own])
    assert table.routes == {}


def test_a_refused_route_keeps_no_other_from_being_set(routes: NodeRoutes, metrics: ProxyMetrics) -> None:
    refused: dict[str, OSError] = {
        "10.1.2.0/24": Foreign(errno.EEXIST, "10.1.2.0/24 has a route of another program"),
        "10.1.3.0/24": OSError(errno.ENETUNREACH, "10.1.3.0/24 via 10.0.0.3: Network is unreachable"),
    }
    table = Table(refused)
    nodes = [node(f"n{number}", f"10.1.{number}.0/24", InternalIP=f"10.0.0.{number}") for number in (2, 3, 4)]
    problems = routes.sync(table, nodes)
    assert problems == [error.strerror for error in refused.values()]
    assert table.routes == {"10.1.4.0/24": "10.0.0.4"}
    assert metrics.registry.get_sample_value("nodewright_proxy_routes", {"state": "set"}) == 1
    assert metrics.registry.get_sample_value("nodewright_proxy_routes", {"state": "failed"}) == 2
    table.refused = {}
    assert routes.sync(table, nodes) == []
    assert metrics.registry.get_sample_value("nodewright_proxy_routes", {"state": "set"}) == 3
    assert metrics.registry.get_sample_value("nodewright_proxy_routes", {"state": "failed"}) == 0


@pytest.mark.parametrize(
    ("given", "addresses", "wanted"),
    [
        ((), {"InternalIP": "10.0.0.1", "ExternalIP": "192.0.2.1"}, [b"\n\0\0\1"]),
        ((), {"ExternalIP": "192.0.2.1"}, [b"\xc0\0\2\1"]),
        (("10.9.9.9",), {"InternalIP": "10.0.0.1"}, [b"\n\t\t\t"]),
    ],
)
def test_node_ports_answer_on_the_addresses_of_the_primary_node(
    given: tuple[str, ...], addresses: dict[str, str], wanted: list[bytes]
) -> None:
    config = ProxyConfig("here", node_ips=given, local_nodes=("here-nodewright",)).check()
    view = node_view(config, node("here", **addresses))
    assert list(view.addresses) == wanted
    assert view.zone == "z"
    assert view.here == {"here", "here-nodewright"}


def test_node_ports_answer_on_the_hosts_addresses_inside_of_networks() -> None:
    config = ProxyConfig("here", node_port_addresses=("0.0.0.0/0", "fd00::/8")).check()
    host = {"10.0.0.1", "192.0.2.1", "127.0.0.1", "169.254.0.9", "fd00::1", "fe80::1", "2001:db8::1"}
    assert within(host, config.node_port_networks) == ("10.0.0.1", "192.0.2.1", "fd00::1")
    assert within(host, ("10.0.0.0/8",)) == ("10.0.0.1",)
    view = node_view(config, node("here", InternalIP="10.0.0.1"), host)
    assert len(view.addresses) == 3
