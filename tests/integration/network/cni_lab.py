"""Hosts with a kubelet's CNI and our pod network side by side, as in a kind cluster.

    host N (10.180.49.1N):  10.249.N.0/24  pods of the CNI: a veth pair each, a /32 route on the host (as plugin ptp)
                            10.249.1N.0/24 our pods, on our bridge

The CNI's routes between hosts have no protocol of ours. Each host has a proxy's rules and routes, fed with objects.
"""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from integration.proxy.proxy_lab import Server, inside
from nodewright.kube.objects import Node
from nodewright_agent.network import hosts, links
from nodewright_agent.network.podnet import NetworkConfig, PodNetwork
from nodewright_agent.proxy.backends.base import BackendOptions
from nodewright_agent.proxy.backends.nftables.backend import NftablesBackend
from nodewright_agent.proxy.metrics import ProxyMetrics
from nodewright_agent.proxy.model import pack_address
from nodewright_agent.proxy.routes import NodeRoutes
from nodewright_agent.proxy.routetable import RouteTable
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.table import TableBuilder

CLUSTER = "10.249.0.0/16"
PORT = 8080


def ip(netns: str, *commands: str) -> None:
    subprocess.run(["ip", "-n", netns, "-batch", "-"], input="\n".join(commands) + "\n", text=True, check=True)


def agent_node(number: int) -> Node:
    document = {
        "metadata": {"name": f"host{number}-nodewright", "labels": {"nodewright.dev/agent": "true"}},
        "spec": {"podCIDR": f"10.249.1{number}.0/24"},
        "status": {"addresses": [{"type": "ExternalIP", "address": f"10.180.49.1{number}"}]},
    }
    return msgspec.convert(document, Node)


class Host:
    """One host: its two kinds of pods, and a proxy's rules and routes."""

    def __init__(self, number: int, netns: str, state: Path) -> None:
        self.number, self.netns, self.path = number, netns, hosts.NETNS_DIR / netns
        self.address = f"10.180.49.1{number}"
        self._config = NetworkConfig(state_dir=state, cluster_cidr=CLUSTER)
        self._stack = ExitStack()
        ip(netns, "link set lo up")
        nothing: Any = None
        names = frozenset({f"host{number}", f"host{number}-nodewright"})
        self.routes = NodeRoutes(nothing, names, ProxyMetrics(), failed=lambda text: None)
        view = NodeView(f"host{number}", "", (pack_address(self.address),), (CLUSTER,), also_here=names)
        self.builder = TableBuilder(view)
        self.backend = NftablesBackend(BackendOptions((CLUSTER,)))
        with inside(self.path):
            self.table = RouteTable()
            self.backend.open()
        self.backend.replace(self.builder.table())
        self._stack.callback(self.backend.close)
        self._stack.callback(self.table.close)

    def foreign_route(self, subnet: str, via: str) -> None:
        """A route as the CNI makes it."""
        ip(self.netns, f"route add {subnet} via {via}")

    def cni_pod(self, netns: Path) -> str:
        """What the plugin ptp does: no bridge, the gateway is the host's end of the pair."""
        address, gateway, link = f"10.249.{self.number}.5", f"10.249.{self.number}.1", f"veth{netns.name[-6:]}"
        ip(
            self.netns,
            f"link add {link} type veth peer name eth0 netns {netns.name}",
            f"addr add {gateway}/32 dev {link}",
            f"link set {link} up",
            f"route add {address}/32 dev {link} scope host",
        )
        ip(
            netns.name,
            "link set lo up",
            "link set eth0 up",
            f"addr add {address}/24 dev eth0",
            f"route del 10.249.{self.number}.0/24 dev eth0",
            f"route add {gateway} dev eth0 scope link",
            f"route add 10.249.{self.number}.0/24 via {gateway}",
            f"route add default via {gateway}",
        )
        return address

    def run(self, method: str, *arguments: Any) -> Any:
        """Call the pod network on this host."""

        async def call() -> Any:
            network = PodNetwork(self._config)
            await network.start(f"10.249.1{self.number}.0/24")
            try:
                return await getattr(network, method)(*arguments)
            finally:
                network.close()

        return links.inside(self.path, lambda: asyncio.run(call()))

    def our_pod(self, netns: Path) -> str:
        address: str = self.run("attach", netns.name, netns).ip
        return address

    def sync_routes(self, *nodes: Node) -> list[str]:
        return self.routes.sync(self.table, nodes)

    def serve(self, netns: Path, name: str) -> None:
        with inside(netns):
            self._stack.callback(Server(name, PORT).close)

    def program(self) -> None:
        self.backend.apply(self.builder.take())

    def nft(self, *words: str) -> str:
        return self.execute("nft", *words)

    def execute(self, *argv: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", "--", *argv], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def close(self) -> None:
        self._stack.close()
