"""Ports of a host that lead to pods: real packets from everywhere, by TCP and UDP."""

import asyncio
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodewright_agent.network import cleanup, hostports, hosts, links
from nodewright_agent.network.hostports import PortMapping
from nodewright_agent.network.podnet import NetworkConfig, PodNetwork
from support.agent_node import wait_until

pytestmark = pytest.mark.needs_root
CLUSTER, CIDR = "10.249.0.0/16", "10.249.1.0/24"
PORT, OUTSIDE = 54323, "10.180.49.12"


class Host:
    """A node host with its pod network, and servers in its pods."""

    def __init__(self, netns: str, state: Path, address: str) -> None:
        self.path, self.state, self.address = hosts.NETNS_DIR / netns, state, address
        self.config = NetworkConfig(state_dir=state, cluster_cidr=CLUSTER)

    def do(self, work: Callable[[PodNetwork], Any]) -> Any:
        """Let `work` use the network, as an agent that starts and ends: what it made stays."""

        async def run() -> Any:
            network = PodNetwork(self.config)
            await network.start(CIDR)
            try:
                return await work(network)
            finally:
                network.close()

        return links.inside(self.path, lambda: asyncio.run(run()))

    def pod(self, uid: str, netns: Path, *ports: tuple[str, str, int]) -> str:
        async def add(network: PodNetwork) -> str:
            ip = (await network.attach(uid, netns)).ip
            await network.publish(uid, [PortMapping(*port, ip, 8080) for port in ports])
            return ip

        return str(self.do(add))

    def rules(self) -> str:
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", "nft", "list", "table", "ip", hostports.TABLE],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout


@pytest.fixture
def answering():
    """Servers at port 8080 of pods that answer with a name and the client's address, for TCP and UDP."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def serve(netns: Path, name: str) -> None:
        ready = threading.Barrier(3)

        def tcp() -> None:
            with socket.create_server(("0.0.0.0", 8080)) as server:
                server.settimeout(0.1)
                ready.wait(5)
                while not stop.is_set():
                    try:
                        connection, peer = server.accept()
                    except TimeoutError:
                        continue
                    connection.sendall(f"{name} {peer[0]}".encode())
                    connection.close()

        def udp() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
                server.bind(("0.0.0.0", 8080))
                server.settimeout(0.1)
                ready.wait(5)
                while not stop.is_set():
                    try:
                        _, peer = server.recvfrom(100)
                    except TimeoutError:
                        continue
                    server.sendto(f"{name} {peer[0]}".encode(), peer)

        for body in (tcp, udp):
            threads.append(threading.Thread(target=lambda body=body: links.inside(netns, body)))
            threads[-1].start()
        ready.wait(5)

    yield serve
    stop.set()
    for thread in threads:
        thread.join(10)


def ask(netns: Path, address: str, protocol: str = "tcp", source: str = "") -> str:
    """What the server behind a host port answers to a client in `netns`; "" when nobody does."""

    def body() -> str:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(1)
            if source:
                client.bind((source, 0))
            try:
                client.connect((address, PORT))
                client.send(b"?") if protocol == "udp" else None
                return client.recv(100).decode()
            except OSError:
                return ""

    return links.inside(netns, body)


@pytest.fixture
def host(node_hosts, tmp_path) -> Host:
    return Host(node_hosts(1), tmp_path / "one", "10.180.49.11")


def test_a_host_port_is_reached_from_everywhere(host, node_hosts, make_netns, answering):
    other = hosts.NETNS_DIR / node_hosts(2)
    server, client = make_netns(), make_netns()
    ip = host.pod("pod-a", server, ("tcp", "", PORT))
    peer = host.pod("pod-b", client)
    answering(server, "a")
    assert ask(other, host.address) == f"a {OUTSIDE}", "from another host, with its own address"
    assert ask(host.path, host.address) == f"a {host.address}", "from the host itself"
    assert ask(host.path, "127.0.0.1") == "a 10.249.1.1", "by its loopback"
    assert ask(host.path, "127.0.0.1", source=host.address) == f"a {host.address}", "as upstream's suite asks"
    assert ask(client, host.address) == f"a {peer}", "from a pod of the same host"
    assert ask(server, host.address) == "a 10.249.1.1", "from itself"
    assert ask(other, host.address, "udp") == ""
    assert ask(client, "127.0.0.1") == "", "a pod's loopback is its own"
    host.do(lambda network: network.detach("pod-a"))
    assert ask(other, host.address) == ""
    assert host.rules() == "", "nothing is left of the last pod's ports"
    assert not list((host.state / "hostports").iterdir())
    assert ip.startswith("10.249.1.")


def test_the_same_number_by_address_and_protocol(host, node_hosts, make_netns, answering):
    other = hosts.NETNS_DIR / node_hosts(2)
    pods = [make_netns() for _ in range(3)]
    host.pod("pod-1", pods[0], ("tcp", "127.0.0.1", PORT))
    host.pod("pod-2", pods[1], ("tcp", host.address, PORT))
    host.pod("pod-3", pods[2], ("udp", host.address, PORT))
    for number, netns in enumerate(pods, 1):
        answering(netns, str(number))
    assert ask(host.path, "127.0.0.1").startswith("1 ")
    assert ask(host.path, host.address).startswith("2 ")
    assert ask(host.path, host.address, "udp").startswith("3 ")
    assert ask(other, host.address).startswith("2 ")
    assert ask(other, host.address, "udp") == f"3 {OUTSIDE}"


def test_a_udp_client_that_goes_on_finds_the_new_pod(host, node_hosts, make_netns, answering):
    other = hosts.NETNS_DIR / node_hosts(2)
    before, after = make_netns(), make_netns()
    answering(before, "old")
    answering(after, "new")

    def talk(change: Callable[[], None]) -> list[str]:
        """Ask before and after the change from one and the same socket."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect((host.address, PORT))
            answers = []
            for step in (lambda: None, change):
                step()
                client.send(b"?")
                answers.append(client.recv(100).decode())
            return answers

    def replace() -> None:
        thread = threading.Thread(
            target=lambda: (
                host.do(lambda network: network.detach("pod-a")),
                host.pod("pod-b", after, ("udp", "", PORT)),
            )
        )
        thread.start()
        thread.join(20)

    host.pod("pod-a", before, ("udp", "", PORT))
    assert links.inside(other, lambda: talk(replace)) == [f"old {OUTSIDE}", f"new {OUTSIDE}"]


def test_a_pod_does_not_reach_the_loopback_of_its_host(host, make_netns):
    """route_localnet is on for the bridge; without the guard this packet would arrive."""
    pod = make_netns()
    host.pod("pod-a", pod, ("tcp", "", PORT))
    assert links.inside(host.path, lambda: Path("/proc/sys/net/ipv4/conf/nw-pods/route_localnet").read_text()) == "1\n"
    # The pod sends what is for 127.0.0.1 out through its link.
    for words in ("addr del 127.0.0.1/8 dev lo", "route add 127.0.0.1/32 via 10.249.1.1 src 10.249.1.2"):
        subprocess.run(["ip", "-n", pod.name, *words.split()], check=True)
    links.inside(pod, lambda: Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").write_text("1"))

    def listen(seen: list[str], ready: threading.Event) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("0.0.0.0", 9999))
            server.settimeout(5)
            ready.set()
            seen.append(server.recvfrom(100)[0].decode())

    def send(address: str, text: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(text, (address, 9999))

    seen, ready = [], threading.Event()
    server = threading.Thread(target=lambda: links.inside(host.path, lambda: listen(seen, ready)))
    server.start()
    assert ready.wait(5)
    links.inside(pod, lambda: send("127.0.0.1", b"to the loopback"))
    links.inside(pod, lambda: send("10.249.1.1", b"to the host"))
    server.join(10)
    assert seen == ["to the host"], "packets keep their order: the first one was dropped"


def test_ports_come_back_after_a_restart_and_after_others_delete_them(host, make_netns, answering):
    pod = make_netns()
    host.pod("pod-a", pod, ("tcp", "", PORT))
    answering(pod, "a")
    assert ask(host.path, host.address).startswith("a ")
    delete = ["nsenter", f"--net={host.path}", "nft", "delete", "table", "ip", hostports.TABLE]
    subprocess.run(delete, check=True)

    async def nothing(network: PodNetwork) -> None:
        assert network.attached().keys() == {"pod-a"}

    host.do(nothing)  # an agent that starts
    assert ask(host.path, host.address).startswith("a ")

    async def watched(network: PodNetwork) -> None:
        keeper = asyncio.create_task(network.keep())
        await asyncio.sleep(0)  # it listens
        for command in (delete, [*delete[:2], "nft", "flush", "chain", "ip", hostports.TABLE, "ports"]):
            await asyncio.to_thread(subprocess.run, command, check=True)
            await asyncio.to_thread(wait_until, "the rules are back", lambda: ask(host.path, host.address), 10)
        add = ["ip", "-n", host.path.name, "addr", "add", "192.0.2.7/32", "dev", "lo"]
        await asyncio.to_thread(subprocess.run, add, check=True)
        await asyncio.to_thread(wait_until, "the port is open there too", lambda: ask(host.path, "192.0.2.7"), 10)
        keeper.cancel()

    host.do(watched)


def test_an_address_that_ipvs_holds_for_services_is_none_of_the_hosts(host, node_hosts, make_netns, answering):
    pod = make_netns()
    link = ["ip", "-n", host.path.name, "link", "add", "kube-ipvs0", "type", "bridge"]  # any link of that name
    subprocess.run(link, check=True)
    subprocess.run(["ip", "-n", host.path.name, "addr", "add", "10.96.0.10/32", "dev", "kube-ipvs0"], check=True)
    host.pod("pod-a", pod, ("tcp", "", PORT))
    answering(pod, "a")
    assert ask(host.path, host.address).startswith("a ")
    assert ask(host.path, "10.96.0.10") == ""


def test_the_clean_up_of_a_host_removes_its_ports(host, make_netns):
    host.pod("pod-a", make_netns(), ("tcp", "", PORT))
    assert f"nft table ip {hostports.TABLE}" in links.inside(host.path, cleanup.remove_all)
    assert host.rules() == ""
