"""Ports of the host that lead to pods (``hostPort``), as upstream's portmap plugin makes them: by one nft table.

    prerouting, output (dstnat + 10)   (address . protocol . port), then (protocol . port) of any address -> dnat
    postrouting (srcnat + 10)          from the host's loopback, or from the pod itself -> masquerade
    prerouting (raw)                   nothing that comes from pods may carry a loopback address

The chains come after those of the service proxies: a port that is a Service's too is the Service's, as with kube-proxy.
"Any address" is one of the host's own; those that IPVS holds for Services are not.
Clients keep their address, but for the two that no answer could find. For the host's own loopback the bridge has
``route_localnet``, which would open 127.0.0.1 to pods, were it not for the third chain.

Text and decisions are pure; ``HostPorts`` keeps each pod's ports in a file, so that the table can always be made anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import msgspec

from nodewright.kube.objects import ContainerPort, Pod
from nodewright_agent.failpoints import failpoint
from nodewright_agent.network.addresses import NetworkError
from nodewright_agent.proxy.hostaddresses import HostAddresses

log = logging.getLogger(__name__)

TABLE = "nodewright-hostports"
_SCTP_TRACKING = Path("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established")
_TRACKING = Path("/proc/sys/net/netfilter")
_UDP = 17


class PortMapping(msgspec.Struct, frozen=True, order=True):
    """One port of the host and where it leads; ``host_ip`` is empty for every address of the host."""

    protocol: str
    host_ip: str
    host_port: int
    ip: str
    port: int


def wanted_ports(pod: Pod) -> list[ContainerPort]:
    """Return the host ports of a pod's containers and sidecars."""
    lasting = [*(one for one in pod.spec.init_containers if one.restart_policy == "Always"), *pod.spec.containers]
    return [port for container in lasting for port in container.ports if port.host_port]


def mappings(pod: Pod, ip: str) -> list[PortMapping]:
    """Return what a pod with this address needs; a pod in the host's network needs nothing.

    Raises ``NetworkError`` for an IPv6 ``hostIP``: pods have IPv4 addresses only.
    """
    if pod.spec.host_network:
        return []
    return [
        PortMapping(port.protocol.lower() or "tcp", _host_ip(port), port.host_port, ip, port.container_port)
        for port in wanted_ports(pod)
    ]


def conflict(pod: Pod, others: Iterable[Pod]) -> bool:
    """Tell whether a host port of ``pod`` is taken by one of ``others`` (the scheduler's NodePorts predicate).

    Two ports are the same unless protocol, number or address differ; an address that is not given is all of them.
    """
    wanted = [_place(port) for port in wanted_ports(pod)]
    if not wanted:
        return False
    taken = [_place(port) for other in others for port in wanted_ports(other)]
    return any(
        one[:2] == two[:2] and (one[2] == two[2] or "0.0.0.0" in (one[2], two[2])) for one in wanted for two in taken
    )


def _place(port: ContainerPort) -> tuple[str, int, str]:
    return port.protocol or "TCP", port.host_port, port.host_ip or "0.0.0.0"


def _host_ip(port: ContainerPort) -> str:
    if port.host_ip in ("", "0.0.0.0"):
        return ""
    try:
        address = ip_address(port.host_ip)
    except ValueError:
        raise NetworkError(f"hostIP {port.host_ip!r} of port {port.host_port} is no IP address") from None
    if not isinstance(address, IPv4Address):
        raise NetworkError(
            f"hostIP {port.host_ip} of port {port.host_port}: pods of this node have IPv4 addresses only"
        )
    return str(address)


def table_text(wanted: Sequence[PortMapping], bridge: str, addresses: Iterable[str] = ()) -> str:
    """Return the nft script that replaces the table by one with these ports, in one transaction.

    ``addresses`` are the host's, besides its loopback.
    """
    own = sorted(text for text in addresses if ":" not in text and not text.startswith("127."))
    anywhere: dict[str, str] = {}
    addressed: dict[str, str] = {}
    for one in wanted:
        target = f"{one.ip} . {one.port}"
        if one.host_ip:
            addressed.setdefault(f"{one.host_ip} . {one.protocol} . {one.host_port}", target)
        else:
            anywhere.setdefault(f"{one.protocol} . {one.host_port}", target)
    hairpin = sorted({one.ip for one in wanted})
    return (
        f"table ip {TABLE}\n"
        f"delete table ip {TABLE}\n"
        f"table ip {TABLE} {{\n"
        "  map addressed {\n    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service\n"
        f"{_elements(f'{key} : {value}' for key, value in sorted(addressed.items()))}  }}\n"
        "  map anywhere {\n    type inet_proto . inet_service : ipv4_addr . inet_service\n"
        f"{_elements(f'{key} : {value}' for key, value in sorted(anywhere.items()))}  }}\n"
        "  set host {\n    type ipv4_addr\n    flags interval\n"
        f"{_elements(['127.0.0.0/8', *own])}  }}\n"
        "  set hairpin {\n    type ipv4_addr . ipv4_addr\n"
        f"{_elements(f'{ip} . {ip}' for ip in hairpin)}  }}\n"
        "  chain ports {\n"
        "    dnat ip to ip daddr . meta l4proto . th dport map @addressed\n"
        "    ip daddr @host dnat ip to meta l4proto . th dport map @anywhere\n"
        "  }\n"
        "  chain prerouting {\n    type nat hook prerouting priority -90; policy accept;\n    jump ports\n  }\n"
        "  chain output {\n    type nat hook output priority -90; policy accept;\n    jump ports\n  }\n"
        "  chain guard {\n    type filter hook prerouting priority -300; policy accept;\n"
        f'    iifname "{bridge}" ip saddr 127.0.0.0/8 drop\n'
        f'    iifname "{bridge}" ip daddr 127.0.0.0/8 drop\n'
        "  }\n"
        "  chain postrouting {\n    type nat hook postrouting priority 110; policy accept;\n"
        f'    oifname "{bridge}" ct status dnat ip saddr 127.0.0.0/8 masquerade\n'
        "    ct status dnat ip saddr . ip daddr @hairpin masquerade\n"
        "  }\n"
        "}\n"
    )


def _essence(text: str) -> list[str]:
    """Return chains, rules and elements of a script or a listing, in which nft lays them out differently."""
    pieces = [piece.strip(" \t{}").removeprefix("elements = {").strip() for piece in re.split(r"[\n,]", text)]
    return sorted(piece for piece in pieces if piece and not piece.startswith(("type ", "table ", "delete ")))


def _elements(texts: Iterable[str]) -> str:
    joined = ", ".join(texts)
    return f"    elements = {{ {joined} }}\n" if joined else ""


class HostPorts:
    """The host ports of all pods of a node, in the network namespace of the calling thread. Calls block."""

    def __init__(self, directory: Path, bridge: str) -> None:
        """Keep a file for each pod with host ports in ``directory``; nothing is made before ``start``."""
        self._directory, self._bridge = directory, bridge
        self._by_pod: dict[str, list[PortMapping]] = {}
        self._addresses: frozenset[str] = frozenset()

    def start(self, known: Iterable[str]) -> None:
        """Take up the ports of pods that have an address (``known``), drop the others', and make the table."""
        alive = set(known)
        for path in self._directory.glob("*.tmp"):
            path.unlink(missing_ok=True)  # a crash came before it was renamed
        for path in sorted(self._directory.glob("*.json")):
            uid = path.stem
            try:
                found = msgspec.json.decode(path.read_bytes(), type=list[PortMapping])
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("host ports of a pod are of no use: %s: %s", path, error)
                found = []
            if uid in alive and found:
                self._by_pod[uid] = found
            else:
                path.unlink(missing_ok=True)
        self._apply()

    def publish(self, pod_uid: str, wanted: list[PortMapping]) -> None:
        """Open a pod's ports. Raise ``NetworkError`` where that is not possible; none of them is open then."""
        if self._by_pod.get(pod_uid, []) == wanted:
            return
        if any(one.protocol == "sctp" for one in wanted) and _TRACKING.exists() and not _SCTP_TRACKING.exists():
            raise NetworkError("host ports of SCTP need connection tracking of it, which this kernel does not have")
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{pod_uid}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(wanted))
        failpoint("ports.written")
        os.replace(temporary, path)
        failpoint("ports.recorded")
        self._by_pod[pod_uid] = wanted
        try:
            self._apply()
        except NetworkError:
            del self._by_pod[pod_uid]
            path.unlink(missing_ok=True)
            raise
        failpoint("ports.opened")
        _forget_flows(wanted)

    def withdraw(self, pod_uid: str) -> None:
        """Close a pod's ports; nothing happens for a pod without any."""
        before = self._by_pod.pop(pod_uid, None)
        if before is not None:
            try:
                self._apply()
            except NetworkError:
                self._by_pod[pod_uid] = before  # the next try closes them
                raise
            failpoint("ports.closed")
            _forget_flows(before)
        (self._directory / f"{pod_uid}.json").unlink(missing_ok=True)

    def moved(self, addresses: frozenset[str]) -> None:
        """Take note of the host's addresses: a port without ``hostIP`` is one of each."""
        if self._by_pod and addresses != self._addresses:
            self._apply()

    def restore(self) -> bool:
        """Make the table anew if others changed it; return whether they had."""
        if not self._by_pod or _essence(_list()) == _essence(self._text()):
            return False
        self._apply()
        return True

    def _text(self) -> str:
        wanted = sorted(one for ports in self._by_pod.values() for one in ports)
        return table_text(wanted, self._bridge, self._addresses)

    def _apply(self) -> None:
        if not self._by_pod:
            remove()
            return
        self._addresses = _own_addresses()
        # Only where ports are published: to other hosts nothing of their loopback's rules changes.
        path = Path(f"/proc/sys/net/ipv4/conf/{self._bridge}/route_localnet")
        problem = _nft(["-f", "-"], self._text())[1]
        if problem is not None:
            raise NetworkError(f"host ports need nft: {problem}")
        with contextlib.suppress(OSError):  # after the guard is there, and only where the bridge is
            path.write_text("1")


def remove() -> bool:
    """Remove the table; return whether it was there."""
    return _nft(["delete", "table", "ip", TABLE])[1] is None


def _own_addresses() -> frozenset[str]:
    try:
        addresses = HostAddresses()
    except OSError as error:
        raise NetworkError(f"the host's addresses cannot be read: {error}") from None
    try:
        return addresses.read()
    finally:
        addresses.close()


def _list() -> str:
    return _nft(["-s", "list", "table", "ip", TABLE])[0]


def _forget_flows(changed: Iterable[PortMapping]) -> None:
    """Have UDP clients that were served otherwise, or by nobody, look again: conntrack would keep them as they were."""
    places = {(one.host_ip, one.host_port) for one in changed if one.protocol == "udp"}
    if not places:
        return
    # Late: nobody else in an agent without a proxy needs it.
    from nodewright_agent.proxy.conntrack import Conntrack, Flow

    def ours(flow: Flow) -> bool:
        address, port = str(IPv4Address(flow.frontend[:-3])), int.from_bytes(flow.frontend[-2:], "big")
        return ("", port) in places or (address, port) in places

    try:
        tracked = Conntrack()
    except OSError as error:
        log.warning("UDP flows to host ports are not forgotten: %s", error)
        return
    try:
        tracked.forget_where(ours, ipv6=False)
    except OSError as error:
        log.warning("UDP flows to host ports are not forgotten: %s", error)
    finally:
        tracked.close()


def _nft(arguments: list[str], stdin: str = "") -> tuple[str, str | None]:
    """Run nft; return its output, and what it said where it failed."""
    try:
        done = subprocess.run(["nft", *arguments], input=stdin, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return "", "it is not installed"
    except subprocess.TimeoutExpired:
        return "", "no answer within 30 s"
    return done.stdout, None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"
