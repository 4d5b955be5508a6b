"""cluster.json: what is decided once for a local cluster and kept over restarts."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

import msgspec

from nodewright.controlplane import layout as layouts
from nodewright.controlplane import slots, versions
from nodewright.controlplane.errors import ControlPlaneError, PreconditionError
from nodewright.controlplane.files import write_atomic
from nodewright.controlplane.layout import Layout

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port while the cluster is
# down, and below NodePorts (30000-32767).
PORT_RANGE = range(20000, 30000)
LOOPBACK = "127.0.0.1"


class Ports(msgspec.Struct, frozen=True):
    """TCP ports of the control plane."""

    apiserver: int
    etcd_client: int
    etcd_peer: int
    controller_manager: int
    operator: int
    scheduler: int


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """The content of cluster.json. `nodes` is the number of node hosts of the latest `up`."""

    name: str
    slot: int
    ports: Ports
    nodes: int = 0
    node_cidr: str
    pod_cidr: str
    service_cidr: str
    kubernetes: str
    etcd: str
    format: int = 1

    @property
    def ranges(self) -> slots.Slot:
        """The address ranges."""
        return slots.Slot(self.slot)

    @property
    def address(self) -> str:
        """kube-apiserver's address: the bridge's where there are node hosts, else loopback."""
        return self.ranges.gateway if self.nodes else LOOPBACK

    @property
    def server(self) -> str:
        """kube-apiserver's URL."""
        return f"https://{self.address}:{self.ports.apiserver}"

    def node_hosts(self) -> list[slots.NodeHost]:
        """The node hosts, first to last."""
        return [self.ranges.node(self.name, index) for index in range(1, self.nodes + 1)]


def load(layout: Layout) -> ClusterState | None:
    """The cluster's state, None when there is none; ControlPlaneError when the file is not what we wrote."""
    path = layout.state_file
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PreconditionError(
            f"cannot read {path}: {error.strerror}", "run the command as the user who started it"
        ) from error
    try:
        state = msgspec.json.decode(data, type=ClusterState)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ControlPlaneError(
            f"{path} is damaged: {error}",
            f"restore the file, or remove the cluster with `nodewright down --name {layout.name} --purge`",
        ) from error
    if state.format != 1 or state.name != layout.name or not 0 <= state.slot < slots.SLOTS:
        raise ControlPlaneError(
            f"{path} does not describe the cluster {layout.name} (format {state.format}, name {state.name}, "
            f"slot {state.slot})",
            "restore the file, or remove the cluster with `nodewright down --purge`",
        )
    return state


def require(layout: Layout) -> ClusterState:
    """The state of a cluster that exists; PreconditionError when there is none."""
    found = load(layout)
    if found is None:
        raise PreconditionError(
            f"there is no cluster {layout.name} below {layout.root}",
            f"start one with `nodewright up --name {layout.name}`, or choose another with --name and --state-dir",
        )
    return found


def save(layout: Layout, state: ClusterState) -> None:
    """Write cluster.json."""
    write_atomic(layout.state_file, msgspec.json.format(msgspec.json.encode(state)) + b"\n", 0o644)


def create(name: str, nodes: int, *, taken: Iterable[int], routes: Iterable[IPv4Network]) -> ClusterState:
    """A new cluster's state: first free slot, free ports."""
    slot = slots.choose_slot(taken, routes)
    return ClusterState(
        name=name,
        slot=slot.number,
        nodes=nodes,
        ports=choose_ports(),
        node_cidr=str(slot.node_cidr),
        pod_cidr=str(slot.pod_cidr),
        service_cidr=str(slots.SERVICE_CIDR),
        kubernetes=versions.KUBERNETES,
        etcd=versions.ETCD,
    )


def with_nodes(state: ClusterState, nodes: int) -> ClusterState:
    """The same cluster with another number of node hosts."""
    return msgspec.structs.replace(state, nodes=nodes)


def slots_taken(root: Path, besides: str) -> set[int]:
    """Slots of the other clusters below `root`. A damaged cluster.json of another does not stop this one."""
    taken = set()
    for name in layouts.clusters(root):
        if name == besides:
            continue
        try:
            other = load(Layout(root, name))
        except ControlPlaneError:
            continue  # its owner hears of it; host routes still show a running one
        if other is not None:
            taken.add(other.slot)
    return taken


def choose_ports() -> Ports:
    """Free ports, chosen at random so that clusters started at the same moment rarely meet."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORT_RANGE, len(PORT_RANGE)):
        if port_is_free("0.0.0.0", port):
            found.append(port)
            if len(found) == len(Ports.__struct_fields__):
                return Ports(*found)
    raise PreconditionError(f"no free TCP ports in {PORT_RANGE.start}-{PORT_RANGE.stop - 1}")


def port_is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now. An address this machine does not have counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go listens: TIME_WAIT does not matter
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL  # the bridge is not there yet
    return True
