"""Making the node known to the API server: once with labels and taints, later only what a kubelet may correct."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import AlreadyExists, ApiError
from nodewright.kube.objects import Node, NodeStatus, ObjectMeta, Taint
from nodewright.kube.resources import NODES
from nodewright_agent.config import AgentConfig
from nodewright_agent.network.addresses import AGENT_LABEL
from nodewright_agent.node import podcidr
from nodewright_agent.node.facts import HostFacts

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MAX = 0.1, 7.0  # kubelet's pauses between tries
HOST_LABEL = "nodewright.dev/host"
"""The kubelet's Node on the same host."""
TOPOLOGY_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
_ATTACH_ANNOTATION = "volumes.kubernetes.io/controller-managed-attach-detach"


def own_labels(config: AgentConfig, facts: HostFacts) -> dict[str, str]:
    """Return the labels that every kubelet sets on its node, less the omitted, and those that tell of a shared host."""
    labels = {
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": facts.architecture,
    }
    shared = {AGENT_LABEL: "true", HOST_LABEL: config.host_node_name} if config.host_node_name else {}
    return {**{name: value for name, value in labels.items() if name not in config.omit_node_labels}, **shared}


def initial_node(
    config: AgentConfig, facts: HostFacts, status: NodeStatus, topology: Mapping[str, str], pod_cidr: str = ""
) -> Node:
    """Return the Node as it is created: labels and taints from the settings are set here and never again.

    ``topology`` are the zone and region of the host's Node; the settings' own labels win. ``pod_cidr`` is what pods
    have addresses of already, if there are any.
    """
    node = Node(
        metadata=ObjectMeta(
            name=config.node_name,
            labels={**topology, **config.node_labels, **own_labels(config, facts)},
            annotations={_ATTACH_ANNOTATION: "true"},
        ),
        status=status,
    )
    if pod_cidr:
        node.spec.pod_cidr, node.spec.pod_cidrs = pod_cidr, [pod_cidr]
    node.spec.taints = [
        Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in config.register_with_taints
    ]
    return node


async def register(client: Client, cluster: Client, config: AgentConfig, facts: HostFacts, status: NodeStatus) -> Node:
    """Create the Node, or take the existing one and put right its default labels; tried until it works.

    ``cluster`` may read the host's Node, which ``client`` (the node itself) may not.
    """
    delay = RETRY_FIRST
    while True:
        try:
            topology = await _topology(cluster, config)
            wanted = initial_node(config, facts, status, topology, await podcidr.to_claim(client, cluster, config))
            return await _try(client, config, facts, wanted, topology)
        except ApiError as error:
            log.warning("cannot register the node: %s; trying again in %.1f s", error, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MAX)


async def _topology(cluster: Client, config: AgentConfig) -> dict[str, str]:
    """Return the zone and region of the host's Node, where they are to be copied."""
    if not config.copy_topology_labels:
        return {}
    host = await cluster.get(NODES, config.host_node_name, type=Node)
    return {name: host.metadata.labels[name] for name in TOPOLOGY_LABELS if name in host.metadata.labels}


async def _try(client: Client, config: AgentConfig, facts: HostFacts, made: Node, topology: Mapping[str, str]) -> Node:
    try:
        node = await client.create(NODES, made, type=Node)
    except AlreadyExists:
        node = await client.get(NODES, config.node_name, type=Node)
    else:
        log.info("node is registered", extra={"node": config.node_name})
        return node
    copied = {name: value for name, value in topology.items() if name not in config.node_labels}
    labels = {**copied, **own_labels(config, facts)}
    wrong = {name: value for name, value in labels.items() if node.metadata.labels.get(name) != value}
    if wrong:
        body = {"metadata": {"labels": wrong}}
        node = await client.patch(NODES, config.node_name, body, type=Node, kind=PatchType.STRATEGIC)
    return node
