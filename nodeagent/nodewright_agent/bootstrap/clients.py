"""The agent's ways to the API server: as the node, and as the account that the whole DaemonSet has."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nodewright.kube import config as kubeconfigs
from nodewright.kube.client import Client
from nodewright_agent.bootstrap.identity import NodeIdentity
from nodewright_agent.config import AgentConfig

_AGENT = "nodewright-agent"


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients, which are one where there is no ServiceAccount."""

    node: Client
    """As ``system:node:NAME``: what the Node authorizer grants: own Pods and what they name, Node, Lease, reviews."""
    cluster: Client
    """As the DaemonSet's ServiceAccount: Services, EndpointSlices, all Nodes, NodeAgentConfigs. Without one the node
    does that, too, by ClusterRole nodewright:node."""
    identity: NodeIdentity | None = None
    """What keeps the node's certificate; None where somebody else does."""


@contextlib.asynccontextmanager
async def connect(config: AgentConfig) -> AsyncIterator[Clients]:
    """Open the clients; with ``bootstrap`` this waits until the node has a certificate.

    Raises ``kube.errors.ConfigError`` for a kubeconfig or ServiceAccount that cannot be used.
    """
    if config.standalone:
        from nodewright_agent.standalone import NoServer  # late: it knows the kubelet API, which no client needs

        async with NoServer() as nobody:
            yield Clients(nobody, nobody)
        return
    if not config.bootstraps:
        async with Client(kubeconfigs.load(config.kubeconfig or None), user_agent=_AGENT) as client:
            yield Clients(client, client)
        return
    given = config.bootstrap_kubeconfig
    kube = kubeconfigs.load(given) if given else kubeconfigs.in_cluster()
    async with Client(kube, user_agent=_AGENT) as account:
        identity = NodeIdentity(
            config.node_name,
            account,
            config.state / "pki",
            expiration_seconds=config.certificate_seconds or None,
        )
        await identity.ensure()
        pem = identity.store.current
        async with Client(kube.with_certificate(pem, pem), user_agent=_AGENT) as node:
            # A bootstrap kubeconfig is good for one thing, and often not for long; a ServiceAccount stays.
            yield Clients(node, node if given else account, identity)
