"""Real links, routes and packets: node hosts on a bridge, pods on node hosts."""

import asyncio
import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from nodewright_agent.network import hosts, links
from nodewright_agent.network.addresses import BRIDGE, NodeRoute, host_link
from nodewright_agent.network.podnet import NetworkConfig, PodNetwork

pytestmark = pytest.mark.needs_root
CLUSTER = "10.249.0.0/16"


def on(netns, coroutine_function):
    """Run a coroutine on a node host: in its network namespace, with a loop of its own."""
    return links.inside(hosts.NETNS_DIR / netns, lambda: asyncio.run(coroutine_function()))


class Node:
    """One node's PodNetwork, driven from inside its namespace, as the agent does."""

    def __init__(self, netns, state_dir, cidr):
        self.netns, self.cidr, self.config = netns, cidr, NetworkConfig(state_dir=state_dir, cluster_cidr=CLUSTER)

    def run(self, method, *arguments):
        async def call():
            network = PodNetwork(self.config)
            await network.start(self.cidr)
            try:
                return await getattr(network, method)(*arguments)
            finally:
                network.close()

        return on(self.netns, call)

    def ip(self, *arguments, netns=None):
        done = subprocess.run(
            ["ip", "-n", netns or self.netns, "-j", *arguments], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout or "[]")


def serve_once(netns: Path, ready: threading.Event, seen: list[str]) -> threading.Thread:
    """Accept one TCP connection on port 8080 in ``netns`` and note the client's address."""

    def body():
        with socket.create_server(("0.0.0.0", 8080)) as server:
            server.settimeout(10)
            ready.set()
            connection, peer = server.accept()
            seen.append(peer[0])
            connection.close()

    thread = threading.Thread(target=lambda: links.inside(netns, body))
    thread.start()
    return thread


def connect(netns: Path | None, ip: str) -> None:
    def body():
        socket.create_connection((ip, 8080), timeout=5).close()

    links.inside(netns, body) if netns else body()


def source_seen(server: Path, client: Path | None, ip: str) -> str:
    ready, seen = threading.Event(), []
    thread = serve_once(server, ready, seen)
    assert ready.wait(5)
    connect(client, ip)
    thread.join(10)
    return seen[0]


def test_pods_of_two_nodes_reach_each_other_unmasqueraded_and_the_outside_masqueraded(node_hosts, make_netns, tmp_path):
    one = Node(node_hosts(1), tmp_path / "1", "10.249.1.0/24")
    two = Node(node_hosts(2), tmp_path / "2", "10.249.2.0/24")
    pod_a, pod_b, pod_c = make_netns(), make_netns(), make_netns()
    a = one.run("attach", "pod-a", pod_a)
    b = two.run("attach", "pod-b", pod_b)
    c = one.run("attach", "pod-c", pod_c)
    one.run("sync_routes", [NodeRoute("10.249.2.0/24", "10.180.49.12")])
    two.run("sync_routes", [NodeRoute("10.249.1.0/24", "10.180.49.11")])

    assert source_seen(pod_b, pod_a, b.ip) == a.ip, "across nodes"
    assert source_seen(pod_c, pod_a, c.ip) == a.ip, "on one node"
    assert source_seen(pod_a, hosts.NETNS_DIR / one.netns, a.ip) == "10.249.1.1", "from the node itself"
    assert source_seen(pod_b, hosts.NETNS_DIR / one.netns, b.ip) == "10.180.49.11", "from a node to another's pod"
    here = Path("/proc/thread-self/ns/net")
    assert source_seen(here, pod_a, "10.180.49.1") == "10.180.49.11", "to the outside: the node's address"


def test_a_pods_link_has_the_mtu_of_the_settings(node_hosts, make_netns, tmp_path):
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    netns = make_netns()
    node.config.mtu = 1400
    address = node.run("attach", "pod", netns)
    shown = ["nsenter", f"--net={netns}", "ip", "-j", "addr", "show", "eth0"]
    (link,) = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)
    assert (link["mtu"], link["operstate"], link["address"]) == (1400, "UP", address.mac)
    (inet,) = [entry for entry in link["addr_info"] if entry["family"] == "inet"]
    assert (inet["local"], inet["prefixlen"]) == (address.ip, 24)
    ours = {link["ifname"]: link["mtu"] for link in node.ip("link") if link["ifname"] in (host_link("pod"), BRIDGE)}
    assert ours == {host_link("pod"): 1400, BRIDGE: 1400}, "or the node sends what the pod's end drops"


def test_other_addresses_of_the_bridge_are_removed_and_the_own_one_stays(node_hosts, make_netns, tmp_path):
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    node.run("attach", "pod", make_netns())

    def addresses():
        (link,) = [link for link in node.ip("-4", "addr") if link["ifname"] == BRIDGE]
        return [(entry["local"], entry["prefixlen"]) for entry in link["addr_info"]]

    own = addresses()
    node.ip("addr", "flush", "dev", BRIDGE)
    for address in ("10.249.1.77/24", "10.249.1.78/24", f"{own[0][0]}/24", "10.250.0.1/16"):
        node.ip("addr", "add", address, "dev", BRIDGE)
    node.run("attach", "other", make_netns())
    assert addresses() == own


def test_a_link_that_cannot_be_made_gives_the_address_back(node_hosts, make_netns, tmp_path):
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    node.config.mtu = 10
    with pytest.raises(OSError, match=f"link {host_link('pod')}: Invalid argument"):
        node.run("attach", "pod", make_netns())
    assert host_link("pod") not in {link["ifname"] for link in node.ip("link")}
    assert not list((tmp_path / "ipam").glob("10.*"))


def test_the_machine_reaches_the_pods_of_all_node_hosts(node_hosts, make_netns, tmp_path):
    one = Node(node_hosts(1), tmp_path / "1", "10.249.1.0/24")
    two = Node(node_hosts(2), tmp_path / "2", "10.249.2.0/24")
    hosts.setup_bridge("nwbt", "10.180.49.1/24", nat=True, pods=CLUSTER)
    for node in (one, two):
        pod = make_netns()
        address = node.run("attach", f"pod-{node.cidr}", pod).ip
        assert source_seen(pod, None, address) == "10.180.49.1"
    with pytest.raises(OSError, match="No route to host"):
        connect(None, "10.249.3.9")


def test_attach_and_detach_can_be_repeated_and_leave_nothing(node_hosts, make_netns, tmp_path):
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    netns = make_netns()
    first = node.run("attach", "pod", netns)
    assert node.run("attach", "pod", netns) == first
    (port,) = [link for link in node.ip("-d", "link") if link["ifname"] == host_link("pod")]
    assert port["master"] == BRIDGE
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is True
    node.run("detach", "pod")
    node.run("detach", "pod")
    assert {link["ifname"] for link in node.ip("link")} == {"lo", "eth0", BRIDGE}
    assert list((tmp_path / "ipam").iterdir()) == []


def test_a_half_made_attachment_is_made_whole(node_hosts, make_netns, tmp_path):
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    netns = make_netns()
    first = node.run("attach", "pod", netns)
    subprocess.run(["ip", "-n", netns.name, "addr", "flush", "dev", "eth0"], check=True)
    assert node.run("attach", "pod", netns) == first
    assert source_seen(netns, hosts.NETNS_DIR / node.netns, first.ip) == "10.249.1.1"


def test_an_attachment_that_was_killed_before_its_last_step_is_made_whole(node_hosts, make_netns, tmp_path):
    """Address set, route not: only the end on the host tells."""
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    netns = make_netns()
    first = node.run("attach", "pod", netns)
    subprocess.run(["ip", "-n", netns.name, "route", "flush", "default"], check=True)
    assert node.run("attach", "pod", netns) == first
    assert node.ip("route", "show", "default", netns=netns.name) == []  # what a Pod does with its routes is its affair
    subprocess.run(["ip", "-n", node.netns, "link", "set", host_link("pod"), "down"], check=True)
    assert node.run("attach", "pod", netns) == first
    (route,) = node.ip("route", "show", "default", netns=netns.name)
    assert route["gateway"] == "10.249.1.1"
    assert source_seen(netns, hosts.NETNS_DIR / node.netns, first.ip) == "10.249.1.1"


def test_a_missing_sandbox_is_an_error_that_keeps_no_address(node_hosts, tmp_path):
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    with pytest.raises(OSError, match="No such file"):
        node.run("attach", "pod", tmp_path / "nowhere")
    assert list((tmp_path / "ipam").iterdir()) == []


def test_routes_follow_the_nodes_and_foreign_routes_stay(node_hosts, tmp_path):
    node = Node(node_hosts(1), tmp_path, "10.249.1.0/24")
    subprocess.run(["ip", "-n", node.netns, "route", "add", "10.77.0.0/16", "via", "10.180.49.1"], check=True)
    node.run("sync_routes", [NodeRoute("10.249.2.0/24", "10.180.49.12"), NodeRoute("10.249.3.0/24", "10.180.49.13")])
    node.run("sync_routes", [NodeRoute("10.249.3.0/24", "10.180.49.14")])
    routes = {route["dst"]: route.get("gateway") for route in node.ip("route")}
    assert "10.249.2.0/24" not in routes
    assert routes["10.249.3.0/24"] == "10.180.49.14"
    assert routes["10.77.0.0/16"] == "10.180.49.1"


def test_removing_the_bridge_undoes_everything(own_network):
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before = (forwarding.read_text(), _state())
    hosts.setup_bridge("nwbu", "10.180.48.1/24", nat=True)
    hosts.setup_bridge("nwbu", "10.180.48.1/24", nat=True)
    hosts.create("n", "nwt-undo", "nwbu", "10.180.48.11/24", "10.180.48.1")
    try:
        hosts.create("n", "nwt-undo", "nwbu", "10.180.48.11/24", "10.180.48.1")
        assert _state() != before[1]
    finally:
        hosts.destroy("nwt-undo")
        hosts.destroy("nwt-undo")
        hosts.remove_bridge("nwbu")
        hosts.remove_bridge("nwbu")
    assert (forwarding.read_text(), _state()) == before
    assert not os.path.exists("/run/netns/nwt-undo")
    assert list(hosts.RECORDS.glob("nwbu.*")) == []


def _state() -> str:
    shown = [["ip", "-o", "link"], ["ip", "-o", "addr", "show", "scope", "global"], ["nft", "list", "ruleset"]]
    return "\n".join(subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in shown)
