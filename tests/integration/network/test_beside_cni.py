"""Our pods beside a kubelet's CNI on the same hosts: real packets between all kinds of pods, and through Services."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.network.cni_lab import CLUSTER, PORT, Host, agent_node
from integration.proxy.proxy_lab import inside
from nodewright_agent.network import cleanup as network_cleanup
from nodewright_agent.network import links
from nodewright_agent.network.addresses import BRIDGE, ROUTE_PROTOCOL
from nodewright_agent.network.podnet import TABLE, NetworkConfig, PodNetwork
from nodewright_agent.proxy import cleanup as proxy_cleanup
from unit.proxy.proxy_objects import endpoint_slice, ready, service

pytestmark = pytest.mark.needs_root
VIP = "10.96.0.10"
ROUTE = f"proto {ROUTE_PROTOCOL}"


def ask(netns: Path, address: str, port: int = PORT) -> str:
    """Connect; gives `server client-address`."""
    with inside(netns):
        sock = socket.socket()
    with sock:
        sock.settimeout(5)
        sock.connect((address, port))
        return sock.recv(100).decode()


class Lab:
    """Two hosts with both kinds of pods, and one with the CNI's alone (as the control plane's)."""

    def __init__(self, node_hosts: Callable[[int], str], make_netns: Callable[[], Path], folder: Path) -> None:
        self.hosts = {number: Host(number, node_hosts(number), folder / str(number)) for number in (1, 2, 3)}
        self.pods: dict[str, tuple[Path, str]] = {}
        for number, host in self.hosts.items():
            host.execute("sysctl", "-qw", "net.ipv4.ip_forward=1")
            for other in self.hosts.values():
                if other is not host:
                    host.foreign_route(f"10.249.{other.number}.0/24", other.address)
            self._add(f"kubelet{number}", host, host.cni_pod, make_netns())
            if number != 3:
                self._add(f"ours{number}", host, host.our_pod, make_netns())

    def _add(self, name: str, host: Host, attach: Callable[[Path], str], netns: Path) -> None:
        self.pods[name] = (netns, attach(netns))
        host.serve(netns, name)

    def sync_routes(self, *numbers: int) -> None:
        for host in self.hosts.values():
            assert host.sync_routes(*map(agent_node, numbers)) == []

    def address(self, pod: str) -> str:
        return self.pods[pod][1]

    def ask(self, pod: str, address: str, port: int = PORT) -> str:
        return ask(self.pods[pod][0], address, port)

    def routes(self, number: int) -> list[str]:
        return self.hosts[number].execute("ip", "route").splitlines()


@pytest.fixture
def lab(node_hosts: Callable[[int], str], make_netns: Callable[[], Path], tmp_path: Path) -> Iterator[Lab]:
    made = Lab(node_hosts, make_netns, tmp_path)
    try:
        yield made
    finally:
        for host in made.hosts.values():
            host.close()


@pytest.mark.parametrize("rp_filter", [0, 1])
def test_all_pods_reach_all_pods_with_their_own_addresses(lab: Lab, rp_filter: int) -> None:
    lab.sync_routes(1, 2)
    for host in lab.hosts.values():
        links_there = (
            line.split(":")[1].split("@")[0].strip() for line in host.execute("ip", "-o", "link").splitlines()
        )
        for name in ("all", *links_there):
            host.execute("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={rp_filter}")
    for client in lab.pods:
        for server in lab.pods:
            assert lab.ask(client, lab.address(server)) == f"{server} {lab.address(client)}", f"{client} to {server}"
    host = lab.hosts[3]
    assert ask(host.path, lab.address("ours1")) == f"ours1 {host.address}", "from a host without pods of ours"


def test_services_reach_both_kinds_of_pods_from_everywhere(lab: Lab) -> None:
    lab.sync_routes(1, 2)
    item = service(
        type="NodePort",
        internalTrafficPolicy="Local",
        ports=[{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}],
    )
    everywhere = service("all", "10.96.0.11", internalTrafficPolicy="Cluster")
    for host in lab.hosts.values():
        for made in (item, everywhere):
            host.builder.set_service(made.key, made)
    for server in lab.pods:
        number = int(server[-1])
        node = f"host{number}" if server.startswith("kubelet") else f"host{number}-nodewright"
        for host in lab.hosts.values():
            for name in ("web", "all"):
                one = endpoint_slice(ready(lab.address(server), node), service=name, name=name)
                host.builder.set_slice(one.key, one, one)
            host.program()
        for client in lab.pods:
            if client == server:
                answer = f"{server} {lab.address(client).rpartition('.')[0]}.1"  # to itself: the gateway's address
            else:
                answer = f"{server} {lab.address(client)}"
            assert lab.ask(client, "10.96.0.11", 80) == answer, f"{client} to {server} through its ClusterIP"
            if client[-1] == server[-1]:
                assert lab.ask(client, VIP, 80) == answer, f"{client} to {server}, policy Local"
        for host in lab.hosts.values():
            assert ask(host.path, host.address, 30080).split()[0] == server, "node port"
    with pytest.raises(TimeoutError):
        lab.ask("kubelet1", VIP, 80)  # the last endpoint is on another host


def test_routes_come_and_go_with_the_nodes_and_leave_the_cnis_alone(lab: Lab) -> None:
    cni = [line for line in lab.routes(3) if "via" in line]
    lab.sync_routes(1, 2)
    assert sorted(line for line in lab.routes(1) if ROUTE in line) == [
        f"10.249.12.0/24 via 10.180.49.12 dev eth0 {ROUTE} "
    ], "none to itself"
    assert len([line for line in lab.routes(3) if ROUTE in line]) == 2
    lab.sync_routes(2)
    assert [line.split()[0] for line in lab.routes(3) if ROUTE in line] == ["10.249.12.0/24"]
    lab.sync_routes()
    assert [line for line in lab.routes(3) if "via" in line] == cni
    host = lab.hosts[3]
    host.foreign_route("10.249.11.0/24", "10.180.49.12")
    assert host.sync_routes(agent_node(1), agent_node(2)) == ["10.249.11.0/24 has a route of another program"]
    assert "10.249.11.0/24 via 10.180.49.12 dev eth0" in [line.strip() for line in lab.routes(3)]
    assert "10.249.12.0/24" in " ".join(line for line in lab.routes(3) if ROUTE in line)


def test_the_agent_leaves_a_route_of_another_program(lab: Lab) -> None:
    from nodewright_agent.network.addresses import NetworkError, NodeRoute

    host = lab.hosts[1]
    with pytest.raises(NetworkError, match=r"10\.249\.2\.0/24"):
        host.run(
            "sync_routes", [NodeRoute("10.249.2.0/24", "10.180.49.13"), NodeRoute("10.249.12.0/24", "10.180.49.12")]
        )
    routes = " ".join(lab.routes(1))
    assert "10.249.2.0/24 via 10.180.49.12 dev eth0" in routes
    assert f"10.249.12.0/24 via 10.180.49.12 dev eth0 {ROUTE}" in routes, "the others are set"
    assert host.sync_routes(agent_node(2)) == [], "the proxy finds the agent's route and is content"


async def test_a_route_removed_by_hand_or_with_its_link_is_announced(lab: Lab) -> None:
    host = lab.hosts[3]
    host.sync_routes(agent_node(1), agent_node(2))
    changed = asyncio.Event()
    stop = host.table.watch(changed.set, lambda subnet: subnet == "10.99.0.0/24")
    try:
        for command in (
            ("ip", "route", "del", "10.249.11.0/24"),
            ("ip", "link", "set", "eth0", "mtu", "1400"),
        ):
            changed.clear()
            await asyncio.to_thread(host.execute, *command)
            await asyncio.wait_for(changed.wait(), 5)
        host.foreign_route("10.99.0.0/24", "10.180.49.11")
        await asyncio.sleep(0.2)
        changed.clear()
        await asyncio.to_thread(host.execute, "ip", "route", "del", "10.99.0.0/24")
        await asyncio.wait_for(changed.wait(), 5)
        changed.clear()
        host.foreign_route("10.98.0.0/24", "10.180.49.11")
        await asyncio.to_thread(host.execute, "ip", "route", "del", "10.98.0.0/24")
        await asyncio.sleep(0.3)
        assert not changed.is_set(), "nobody wants that one"
    finally:
        stop()


def test_a_forward_policy_of_drop_lets_pods_through(lab: Lab) -> None:
    lab.sync_routes(1, 2)
    host = lab.hosts[1]
    host.execute("iptables-nft", "-P", "FORWARD", "DROP")
    with pytest.raises(TimeoutError):
        lab.ask("ours1", lab.address("kubelet2"))
    host.run("detach", "nobody")  # an agent starts
    assert lab.ask("ours1", lab.address("kubelet2")).startswith("kubelet2 ")
    assert lab.ask("kubelet2", lab.address("ours1")).startswith("ours1 ")
    host.run("detach", "nobody")
    rules = host.execute("iptables-nft", "-S", "FORWARD").splitlines()
    assert len([line for line in rules if BRIDGE in line]) == 2, "once, however often it starts"
    assert BRIDGE not in lab.hosts[2].execute("nft", "list", "ruleset").replace(f'oifname != "{BRIDGE}"', "")


async def test_removed_masquerade_rules_come_back(lab: Lab, tmp_path: Path) -> None:
    host, seen = lab.hosts[1], []

    def agent() -> None:
        async def body() -> None:
            network = PodNetwork(NetworkConfig(state_dir=tmp_path / "1", cluster_cidr=CLUSTER))
            await network.start("10.249.11.0/24")
            keeping = asyncio.create_task(network.keep())
            await asyncio.sleep(0.1)
            for words in (("flush", "ruleset"), ("flush", "chain", "ip", TABLE, "postrouting")):
                await asyncio.to_thread(host.nft, *words)
                began = time.monotonic()
                while "masquerade" not in await asyncio.to_thread(host.nft, "list", "ruleset"):
                    assert time.monotonic() - began < 10
                    await asyncio.sleep(0.05)
                seen.append(words)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            network.close()

        asyncio.run(body())

    await asyncio.to_thread(links.inside, host.path, agent)
    assert len(seen) == 2


def test_cleanup_removes_what_is_ours_and_nothing_else(lab: Lab) -> None:
    lab.sync_routes(1, 2)
    host = lab.hosts[1]
    host.execute("iptables-nft", "-P", "FORWARD", "DROP")
    host.run("detach", "nobody")
    host.builder.set_service("default/web", service())
    one = endpoint_slice(ready(lab.address("kubelet1")))
    host.builder.set_slice(one.key, None, one)
    host.program()
    assert lab.ask("ours1", VIP, 80).startswith("kubelet1 ")
    host.nft("add", "table", "ip", "somebody-elses")
    # what the agent sets where there is no nft
    words = ("-s", "10.249.11.0/24", "!", "-d", CLUSTER, "!", "-o", BRIDGE, "-m", "comment", "--comment")
    host.execute("iptables", "-t", "nat", "-A", "POSTROUTING", *words, "nodewright: to the outside", "-j", "MASQUERADE")
    host.execute("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", CLUSTER, "!", "-d", CLUSTER, "-j", "MASQUERADE")
    removed = links.inside(host.path, network_cleanup.remove_all)
    assert {"route 10.249.12.0/24", f"link {BRIDGE}", f"nft table ip {TABLE}"} < set(removed)
    assert "iptables nat POSTROUTING: masquerade of 10.249.11.0/24" in removed
    assert sum(text.startswith("iptables-nft FORWARD") for text in removed) == 2
    assert any(text.startswith("link nw") and BRIDGE not in text for text in removed), "the pod's link"
    assert links.inside(host.path, network_cleanup.remove_all) == [], "a second time there is nothing"
    removed = links.inside(host.path, proxy_cleanup.remove_all)
    assert [text for text in removed if text.startswith("nft table")] == [
        "nft table ip nodewright-proxy",
        "nft table ip6 nodewright-proxy",
    ]
    assert links.inside(host.path, proxy_cleanup.remove_all) == []
    rest = host.execute("nft", "list", "ruleset")
    assert "nodewright" not in rest
    assert "ip saddr 10.249.0.0/16" in rest, "the CNI's masquerade"
    assert "somebody-elses" in rest
    assert ROUTE not in " ".join(lab.routes(1))
    assert "10.249.2.0/24 via 10.180.49.12" in " ".join(lab.routes(1)), "the CNI's"
    names = {line.split()[1].split("@")[0].rstrip(":") for line in host.execute("ip", "-o", "link").splitlines()}
    assert BRIDGE not in names
    assert len(names) == 3, f"lo, eth0 and the CNI's: {names}"


def test_cleanup_forgets_udp_flows_to_services_and_lets_tcp_go_on(lab: Lab) -> None:
    host = lab.hosts[1]
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    targets = [{"name": port["name"], "port": PORT, "protocol": port["protocol"]} for port in ports]
    item = service(ports=ports)
    host.builder.set_service(item.key, item)
    one = endpoint_slice(ready(lab.address("kubelet1")), ports=targets)
    host.builder.set_slice(one.key, None, one)
    host.program()
    with inside(lab.pods["ours1"][0]):
        tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with tcp, udp:
        tcp.settimeout(5)
        udp.settimeout(5)
        tcp.connect((VIP, 80))
        tcp.recv(100)
        udp.connect((VIP, 53))
        udp.send(b"?")
        assert udp.recv(100)
        removed = links.inside(host.path, proxy_cleanup.remove_all)
        assert "1 UDP flows in conntrack" in removed
        tcp.sendall(b"still there")
        assert tcp.recv(100) == b"still there"
        udp.settimeout(1)
        udp.send(b"?")
        with pytest.raises((TimeoutError, ConnectionError)):
            udp.recv(100)


def test_the_api_servers_host_reaches_itself_through_the_cluster_ip(lab: Lab) -> None:
    """As `kubernetes.default`: an endpoint in the host's own network, asked from there and from pods of all hosts."""
    host = lab.hosts[3]
    host.serve(host.path, "apiserver")
    item = service("kubernetes", "10.96.0.1")
    one = endpoint_slice({"addresses": [host.address]}, service="kubernetes")
    for each in lab.hosts.values():
        each.builder.set_service(item.key, item)
        each.builder.set_slice(one.key, None, one)
        each.program()
    lab.sync_routes(1, 2)
    assert ask(host.path, "10.96.0.1", 80) == f"apiserver {host.address}"
    assert ask(lab.hosts[1].path, "10.96.0.1", 80) == f"apiserver {lab.hosts[1].address}"
    for pod in lab.pods:
        assert lab.ask(pod, "10.96.0.1", 80).split()[0] == "apiserver", pod
