"""Node hosts on one machine: network namespaces joined by a bridge.

``nodewright up --nodes K`` makes K of them. Each is a namespace ``/run/netns/NAME`` with an ``eth0`` on the bridge;
the bridge's own address is where the API server listens, and the way out for image pulls. What is changed on the
machine itself (the bridge, one NAT table, ``ip_forward``) is recorded under ``/run/nodewright/hosts`` and undone by
``remove_bridge``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from ipaddress import IPv4Interface
from pathlib import Path

from nodewright_agent.network import links, masquerade
from nodewright_agent.network.addresses import NetworkError, PodAddress, mac_of

NETNS_DIR = Path("/run/netns")
RECORDS = Path("/run/nodewright/hosts")


def setup_bridge(bridge: str, cidr: str, *, nat: bool, pods: str = "") -> None:
    """Make ``bridge`` with the address ``cidr`` (such as ``10.180.0.1/24``); idempotent.

    With ``nat``, node hosts reach what this machine reaches: forwarding on, and their subnet masqueraded.
    With ``pods``, this machine reaches that subnet, too: kube-apiserver calls webhooks, and proxies to Pods. It asks
    on the bridge who has an address, and the node host of the Pod answers (see ``create``): no route per node.
    """
    interface = IPv4Interface(cidr)
    record = _record(bridge)
    if not record.exists():
        RECORDS.mkdir(parents=True, exist_ok=True)
        forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
        record.write_text(json.dumps({"subnet": str(interface.network), "ip_forward": forwarding, "nat": nat}))
    _bridge(bridge, interface, pods)
    if nat:
        links.write_sysctl("net.ipv4.ip_forward", "1")
        masquerade.ensure(_rule(bridge, str(interface.network)))


def remove_bridge(bridge: str) -> None:
    """Undo ``setup_bridge``. ``ip_forward`` goes back to its old value with the last bridge of ours."""
    record = _record(bridge)
    try:
        saved = json.loads(record.read_text())
    except FileNotFoundError:
        saved = None
    _delete(bridge)
    if saved is None:
        return
    if saved["nat"]:
        masquerade.remove(_rule(bridge, saved["subnet"]))
    record.unlink()
    with contextlib.suppress(OSError):  # another bridge's record, or another cluster's files, keep it
        RECORDS.rmdir()
        RECORDS.parent.rmdir()
    if list(RECORDS.glob(_record("*").name)):
        _hand_over(saved["ip_forward"])
    elif saved["nat"] and saved["ip_forward"] == "0":
        links.write_sysctl("net.ipv4.ip_forward", "0")


def create(name: str, netns: str, bridge: str, address: str, gateway: str) -> None:
    """Make the node host ``name`` in the namespace ``netns``, at ``address`` (with prefix length); idempotent.

    It answers on the bridge for the addresses of its Pods.
    """
    path = NETNS_DIR / netns
    if not path.exists():
        _ip("netns", "add", netns)
    interface = IPv4Interface(address)
    node = PodAddress(str(interface.ip), interface.network.prefixlen, gateway, mac_of(interface.ip))
    _connect(_host_end(netns), bridge, path, node)


def command(netns: str, argv: list[str]) -> list[str]:
    """Return the command line that runs ``argv`` inside the node host.

    Only the network namespace changes. Mounts stay in the machine's mount namespace, so that what an agent mounted
    for its pods is still there for the agent that follows it.
    """
    return ["nsenter", f"--net={NETNS_DIR / netns}", "--", *argv]


def destroy(netns: str) -> None:
    """Remove the node host's namespace and with it its links, routes and rules; nothing happens if it is gone."""
    _delete(_host_end(netns))
    if (NETNS_DIR / netns).exists():
        _ip("netns", "delete", netns)


def _connect(host_end: str, bridge: str, netns: Path, node: PodAddress) -> None:
    with links.netlink() as handle:
        index = links.index_of(handle, bridge)
        if index is None:
            raise NetworkError(f"bridge {bridge} does not exist")
        if links.is_up(handle, host_end):
            return
        links.delete_link(handle, host_end)  # half made, if there is one: somebody was killed in between
        try:
            links.add_veth(handle, host_end, index, netns, "eth0", node.mac)
            links.inside(netns, lambda: links.configure_inside("eth0", node))
            links.inside(netns, lambda: _answer_for_pods("eth0"))
            links.enable(handle, host_end, hairpin=False)
        except Exception:
            links.delete_link(handle, host_end)  # so that the next call starts from nothing
            raise


def _answer_for_pods(ifname: str) -> None:
    """The kernel answers for what it reaches through another link: its own pods, not those of other nodes."""
    links.write_sysctl(f"net.ipv4.conf.{ifname}.proxy_arp", "1")
    links.write_sysctl(f"net.ipv4.neigh.{ifname}.proxy_delay", "0")  # up to 0.8 s otherwise


def _bridge(bridge: str, interface: IPv4Interface, pods: str) -> None:
    with links.netlink() as handle:
        index = links.ensure_bridge(handle, bridge, str(interface.ip), interface.network.prefixlen)
        if pods:
            links.set_link_route(handle, pods, index, str(interface.ip))


def _delete(name: str) -> None:
    with links.netlink() as handle:
        links.delete_link(handle, name)


def _hand_over(ip_forward: str) -> None:
    """Another bridge of ours remains and may have found forwarding already on because of the one now removed."""
    if ip_forward != "0":
        return
    for record in RECORDS.glob(_record("*").name):
        saved = json.loads(record.read_text())
        record.write_text(json.dumps({**saved, "ip_forward": "0"}))


def _record(bridge: str) -> Path:
    """Return where changes for ``bridge`` are recorded; bridges of two namespaces may be named alike."""
    return RECORDS / f"{bridge}.{os.stat('/proc/self/ns/net').st_ino}.json"


def _host_end(netns: str) -> str:
    return "nwh" + hashlib.sha1(netns.encode(), usedforsecurity=False).hexdigest()[:11]


def _rule(bridge: str, subnet: str) -> masquerade.Rule:
    return masquerade.Rule(f"nodewright-{bridge}", subnet, subnet, bridge)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
