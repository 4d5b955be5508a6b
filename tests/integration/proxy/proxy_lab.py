"""A small network of namespaces for packet tests: a client, a node with a bridge, and pods behind it.

    client 10.1.0.2 --- 10.1.0.1 node 10.2.0.1 (bridge) --- pods 10.2.0.11, .12, .13

The same in IPv6 (fd00:1::/64, fd00:2::/64). Sockets are made inside of a namespace by the calling thread and stay
there, so that servers and clients live in the test process. Nothing is made outside of the lab's own namespaces.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

PORT = 8080
PODS = (11, 12, 13)
POD_CIDRS = ("10.2.0.0/24", "fd00:2::/64")
CLIENT = "10.1.0.2"
NODE = "10.1.0.1"
BRIDGE = "10.2.0.1"


def pod_ip(number: int, ipv6: bool = False) -> str:
    return f"fd00:2::{number}" if ipv6 else f"10.2.0.{number}"


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Move the calling thread into a network namespace for a while."""
    with open("/proc/thread-self/ns/net") as before, open(path) as there:
        if _libc.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        try:
            yield
        finally:
            if _libc.setns(before.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot return to the first namespace")


class Server:
    """Answers `name client-address` over TCP (then echoes) and UDP on one port of a namespace."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # answers leave from the address that was asked, as with a connected server
        udp.bind(("::", port))
        self._sockets += [tcp, udp]
        self._start(self._accept, tcp)
        self._start(self._datagrams, udp)

    def _start(self, target: object, sock: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(sock,), daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _greeting(self, peer: tuple[object, ...]) -> bytes:
        return f"{self.name} {str(peer[0]).removeprefix('::ffff:')}".encode()

    def _accept(self, tcp: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                connection, peer = tcp.accept()
            except OSError:
                return
            self._sockets.append(connection)
            self._start(lambda c, peer=peer: self._echo(c, peer), connection)

    def _echo(self, connection: socket.socket, peer: tuple[object, ...]) -> None:
        try:
            connection.sendall(self._greeting(peer))
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            pass
        finally:
            connection.close()

    def _datagrams(self, udp: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                _, peer = udp.recvfrom(4096)
                if not self._stop.is_set():
                    udp.sendto(self._greeting(peer), peer)
            except OSError:
                if self._stop.is_set():
                    return

    def close(self) -> None:
        self._stop.set()
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
            except OSError:
                pass
        for thread in self._threads:
            thread.join(timeout=10)
        for sock in self._sockets:
            sock.close()


class Lab:
    """The network; `close()` removes it."""

    def __init__(self) -> None:
        self._prefix = f"nwp{os.getpid() % 100000}"
        self._stack = ExitStack()
        self._names: list[str] = []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def path(self, name: str) -> Path:
        return Path("/run/netns") / f"{self._prefix}-{name}"

    def _ip(self, name: str | None, *commands: str) -> None:
        inside_of = ["-n", f"{self._prefix}-{name}"] if name else []
        subprocess.run(["ip", *inside_of, "-batch", "-"], input="\n".join(commands) + "\n", text=True, check=True)

    def _add(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", f"{self._prefix}-{name}"], check=True)
        self._names.append(name)

    def _build(self) -> None:
        for name in ("client", "node", *(f"pod{number}" for number in PODS)):
            self._add(name)
        self._ip(
            "node",
            "link set lo up",
            f"link add out type veth peer name eth0 netns {self._prefix}-client",
            "link add br0 type bridge",
            "link set br0 up",
            "link set out up",
            f"addr add {NODE}/24 dev out",
            "addr add fd00:1::1/64 dev out nodad",
            f"addr add {BRIDGE}/24 dev br0",
            "addr add fd00:2::1/64 dev br0 nodad",
            f"route add default via {CLIENT}",  # any: the node's own connections to a ClusterIP need a route
            "route add default via fd00:1::2",
        )
        self._ip(
            "client",
            "link set lo up",
            "link set eth0 up",
            f"addr add {CLIENT}/24 dev eth0",
            "addr add fd00:1::2/64 dev eth0 nodad",
            f"route add default via {NODE}",
            "route add default via fd00:1::1",
        )
        for number in PODS:
            self._ip(
                "node",
                f"link add p{number} type veth peer name eth0 netns {self._prefix}-pod{number}",
                f"link set p{number} master br0 up",
                f"link set p{number} type bridge_slave hairpin on",
            )
            self._ip(
                f"pod{number}",
                "link set lo up",
                "link set eth0 up",
                f"addr add {pod_ip(number)}/24 dev eth0",
                f"addr add {pod_ip(number, True)}/64 dev eth0 nodad",
                f"route add default via {BRIDGE}",
                "route add default via fd00:2::1",
            )
        with inside(self.path("node")):
            for setting in (
                "net/ipv4/ip_forward",
                "net/ipv6/conf/all/forwarding",
                # pods of one bridge answer each other directly, past conntrack, unless the bridge shows it the packets
                "net/bridge/bridge-nf-call-iptables",
                "net/bridge/bridge-nf-call-ip6tables",
            ):
                Path("/proc/sys", setting).write_text("1")

    def serve(self, number: int, port: int = PORT) -> Server:
        """Start a server named after its pod; it ends with the lab."""
        with inside(self.path(f"pod{number}")):
            server = Server(str(number), port)
        self._stack.callback(server.close)
        return server

    def connect(self, name: str, address: str, port: int, timeout: float = 5.0) -> tuple[socket.socket, str]:
        """Open a TCP connection from a namespace; gives it with the greeting."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(self.path(name)):
            sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
            return sock, sock.recv(4096).decode()
        except BaseException:
            sock.close()
            raise

    def tcp(self, name: str, address: str, port: int, timeout: float = 5.0) -> str:
        """Connect once; gives `server client-address`."""
        sock, greeting = self.connect(name, address, port, timeout)
        sock.close()
        return greeting

    def udp_socket(self, name: str, address: str, port: int, timeout: float = 5.0) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(self.path(name)):
            sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.settimeout(timeout)
        sock.connect((address, port))
        return sock

    def udp(self, name: str, address: str, port: int, timeout: float = 5.0) -> str:
        """Send one datagram and wait for the answer."""
        with self.udp_socket(name, address, port, timeout) as sock:
            sock.send(b"?")
            return sock.recv(4096).decode()

    def servers_seen(self, name: str, address: str, port: int, tries: int = 24, protocol: str = "tcp") -> Counter[str]:
        """Connect many times; counts which server answered."""
        ask = self.tcp if protocol == "tcp" else self.udp
        return Counter(ask(name, address, port).split()[0] for _ in range(tries))

    def run(self, name: str, *argv: str) -> str:
        """Run a program in a namespace."""
        command = ["ip", "netns", "exec", f"{self._prefix}-{name}", *argv]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(argv)}: {result.returncode} {result.stderr}"
        return result.stdout

    def close(self) -> None:
        self._stack.close()
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", f"{self._prefix}-{name}"], check=False)
        self._names.clear()
