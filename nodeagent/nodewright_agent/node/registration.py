"""Making the node known to the API server: once with labels and taints, later only what a kubelet may correct."""

from __future__ import annotations

import asyncio
import logging

from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import AlreadyExists, ApiError
from nodewright.kube.objects import Node, NodeStatus, ObjectMeta, Taint
from nodewright.kube.resources import NODES
from nodewright_agent.config import AgentConfig
from nodewright_agent.node.facts import HostFacts

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MAX = 0.1, 7.0  # kubelet's pauses between tries
_ATTACH_ANNOTATION = "volumes.kubernetes.io/controller-managed-attach-detach"


def own_labels(config: AgentConfig, facts: HostFacts) -> dict[str, str]:
    """Return the labels that every kubelet sets on its node."""
    return {
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": facts.architecture,
    }


def initial_node(config: AgentConfig, facts: HostFacts, status: NodeStatus) -> Node:
    """Return the Node as it is created: labels and taints from the settings are set here and never again."""
    node = Node(
        metadata=ObjectMeta(
            name=config.node_name,
            labels={**config.node_labels, **own_labels(config, facts)},
            annotations={_ATTACH_ANNOTATION: "true"},
        ),
        status=status,
    )
    node.spec.taints = [
        Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in config.register_with_taints
    ]
    return node


async def register(client: Client, config: AgentConfig, facts: HostFacts, status: NodeStatus) -> Node:
    """Create the Node, or take the existing one and put right its default labels; tried until it works."""
    delay = RETRY_FIRST
    while True:
        try:
            return await _try(client, config, facts, status)
        except ApiError as error:
            log.warning("cannot register the node: %s; trying again in %.1f s", error, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MAX)


async def _try(client: Client, config: AgentConfig, facts: HostFacts, status: NodeStatus) -> Node:
    try:
        node = await client.create(NODES, initial_node(config, facts, status), type=Node)
    except AlreadyExists:
        node = await client.get(NODES, config.node_name, type=Node)
    else:
        log.info("node is registered", extra={"node": config.node_name})
        return node
    wrong = {k: v for k, v in own_labels(config, facts).items() if node.metadata.labels.get(k) != v}
    if wrong:
        body = {"metadata": {"labels": wrong}}
        node = await client.patch(NODES, config.node_name, body, type=Node, kind=PatchType.STRATEGIC)
    return node
