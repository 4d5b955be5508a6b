"""Local node hosts for `up` and `down`: the bridge, the network namespaces, the agents in them.

The one place of the cluster side that imports the host side, and only when there are node hosts.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from nodewright.cli.output import PRECONDITION, CliError
from nodewright.controlplane import slots
from nodewright.controlplane.cluster import LocalCluster, component, mounts_below
from nodewright.controlplane.files import make_dir, write_if_changed
from nodewright.controlplane.layout import Layout
from nodewright.controlplane.progress import Progress
from nodewright.controlplane.slots import NodeHost

_AGENT = "agent-"
_IDS = 110 * 65536
_FIRST_ID = 65536
"""User ids for Pods: as many as an agent takes Pods, for each a namespace, and none of the host's own."""
_TOOLS = ("runc", "conmon", "ip", "nsenter")


class HostRecord(msgspec.Struct, frozen=True):
    """nodes/<node>/host.json: what was made on this machine for a node host, so that it can be undone later."""

    name: str
    netns: str
    bridge: str
    run_dir: str
    cgroup_root: str


def start_network(cluster: LocalCluster, progress: Progress) -> None:
    """The bridge, on whose address kube-apiserver will listen."""
    from nodewright_agent.network import hosts

    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise CliError(
            f"node hosts need {', '.join(missing)}, which this machine lacks", "see `nodewright doctor`", PRECONDITION
        )
    ranges = cluster.state.ranges
    _claim_runtime_dir(cluster.layout)
    _refuse_foreign_routes(cluster)
    with progress.step("network") as step:
        gateway = f"{ranges.gateway}/{ranges.node_cidr.prefixlen}"
        hosts.setup_bridge(ranges.bridge, gateway, nat=True, pods=str(ranges.pod_cidr))
        step.result(f"bridge {ranges.bridge}, {ranges.node_cidr}")


def start_agents(cluster: LocalCluster, progress: Progress) -> None:
    """Node hosts and their agents; hosts beyond the wanted number are stopped and their Nodes deleted."""
    from nodewright_agent.network import hosts

    wanted = cluster.state.node_hosts()
    _remove_surplus(cluster, {host.name for host in wanted}, progress)
    if not wanted:
        return
    cluster.prepare_nodes()
    ranges = cluster.state.ranges
    for host in wanted:
        with progress.step(f"node host {host.name}") as step:
            record = _record(cluster.layout, host, ranges.bridge)
            make_dir(cluster.layout.node(host.name), 0o755)
            write_if_changed(_record_path(cluster.layout, host.name), msgspec.json.encode(record), 0o644)
            address = f"{host.address}/{ranges.node_cidr.prefixlen}"
            hosts.create(host.name, host.netns, ranges.bridge, address, ranges.gateway)
            started = _start_agent(cluster, host, record)
            step.result(f"{host.address}, agent {'started' if started else 'running'}")


def stop_hosts(layout: Layout, progress: Progress) -> None:
    """End what the node hosts still run and undo what was made on this machine for them. Data on disk stays."""
    from nodewright_agent.network import hosts

    bridges = set()
    for path in sorted(layout.node("").glob("*/host.json")):
        record = msgspec.json.decode(path.read_bytes(), type=HostRecord)
        bridges.add(record.bridge)
        with progress.step(f"node host {record.name}") as step:
            _require_root_for(layout)
            _end_host(layout, record)
            step.result("ended")
    for bridge in sorted(bridges):
        hosts.remove_bridge(bridge)
    runtime = layout.runtime_dir
    if runtime.exists() and not mounts_below(runtime):
        shutil.rmtree(runtime)


def agent_config(cluster: LocalCluster, host: NodeHost, record: HostRecord) -> dict[str, object]:
    """The agent's settings, by AgentConfig's field names."""
    layout, state = cluster.layout, cluster.state
    slot = int(host.address.rpartition(".")[2])  # hosts of one machine share its user ids
    return {
        "node_name": host.name,
        "kubeconfig": str(layout.kubeconfig(f"node-{host.name}")),
        "state_dir": str(layout.node(host.name)),
        "run_dir": record.run_dir,
        "image_root": str(layout.images),
        "cgroup_root": record.cgroup_root,
        "node_ip": host.address,
        "userns_range": f"{_FIRST_ID + slot * _IDS}:{_IDS}",
        "cluster_cidr": state.pod_cidr,
        "tls_cert_file": str(layout.pki / f"node-{host.name}-server.crt"),
        "tls_key_file": str(layout.pki / f"node-{host.name}-server.key"),
        "client_ca_file": str(layout.pki / "ca.crt"),
        "node_labels": {"kubernetes.io/hostname": host.name},
    }


def _start_agent(cluster: LocalCluster, host: NodeHost, record: HostRecord) -> bool:
    from nodewright_agent.network import hosts

    layout = cluster.layout
    config = layout.node(host.name) / "agent.json"
    write_if_changed(config, msgspec.json.format(msgspec.json.encode(agent_config(cluster, host, record))), 0o600)
    inputs = [config, layout.kubeconfig(f"node-{host.name}"), layout.pki / f"node-{host.name}-server.crt"]
    return cluster.start_own(
        f"{_AGENT}{host.name}",
        ["agent", f"--config={config}"],
        inputs=inputs,
        prefix=hosts.command(host.netns, []),
    )


def _remove_surplus(cluster: LocalCluster, wanted: set[str], progress: Progress) -> None:
    for path in sorted(cluster.layout.node("").glob("*/host.json")):
        record = msgspec.json.decode(path.read_bytes(), type=HostRecord)
        if record.name in wanted:
            continue
        with progress.step(f"node host {record.name}") as step:
            component(cluster.layout, f"{_AGENT}{record.name}").stop()
            _end_host(cluster.layout, record)
            _delete_node(cluster, record.name)
            shutil.rmtree(cluster.layout.node(record.name))
            step.result("removed")


def _end_host(layout: Layout, record: HostRecord) -> None:
    from nodewright_agent.cleanup import purge_node
    from nodewright_agent.network import hosts

    purge_node(layout.node(record.name), Path(record.run_dir), record.netns, record.cgroup_root)
    hosts.destroy(record.netns)


def _delete_node(cluster: LocalCluster, name: str) -> None:
    import asyncio

    from nodewright.kube import config as kubeconfigs
    from nodewright.kube.client import Client
    from nodewright.kube.errors import NotFound
    from nodewright.kube.resources import NODES

    async def delete() -> None:
        async with Client(kubeconfigs.load(cluster.kubeconfig)) as client:
            try:
                await client.delete(NODES, name)
            except NotFound:
                pass  # it never registered

    asyncio.run(delete())


def _record(layout: Layout, host: NodeHost, bridge: str) -> HostRecord:
    short = f"node{host.index}"  # paths of sockets are limited to 108 bytes
    return HostRecord(host.name, host.netns, bridge, str(layout.runtime_dir / short), f"{layout.cgroup_root}/{short}")


def _record_path(layout: Layout, node: str) -> Path:
    return layout.node(node) / "host.json"


def _claim_runtime_dir(layout: Layout) -> None:
    """Network namespaces, cgroups and /run are named after the cluster: two of one name cannot both have hosts."""
    make_dir(layout.runtime_dir, 0o755)
    owner = layout.runtime_dir / "owner"
    try:
        held = owner.read_text()
    except FileNotFoundError:
        held = ""
    if held not in ("", str(layout.dir)) and Path(held).exists():
        raise CliError(
            f"the node hosts of a cluster {layout.name} kept in {held} exist on this machine",
            "choose another --name, or stop that one first",
            PRECONDITION,
        )
    write_if_changed(owner, str(layout.dir), 0o644)


def _refuse_foreign_routes(cluster: LocalCluster) -> None:
    ranges = cluster.state.ranges
    for interface, network in slots.host_routes():
        mine = interface == ranges.bridge
        if network.prefixlen and not mine and (network.overlaps(ranges.node_cidr) or network.overlaps(ranges.pod_cidr)):
            raise CliError(
                f"the cluster's addresses ({ranges.node_cidr}, {ranges.pod_cidr}) overlap {network}, which this "
                f"machine now reaches through {interface}",
                "remove that route, or make a new cluster: it takes a free range",
                PRECONDITION,
            )


def _require_root_for(layout: Layout) -> None:
    if os.geteuid() != 0:
        raise CliError(
            f"the cluster {layout.name} has node hosts, which only root can end", "run with sudo", PRECONDITION
        )
