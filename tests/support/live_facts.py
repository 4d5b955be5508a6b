"""What kind of cluster this is, found out by looking at it, so that the same tests run on each."""

from dataclasses import dataclass
from typing import Any

from kubernetes import client

from support.live import Live

RELEASE_NAMESPACE = "nodewright-system"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"


@dataclass(frozen=True)
class Facts:
    """Names of schedulable nodes by who runs their Pods, and what serves Services."""

    kubelet_nodes: tuple[str, ...]
    nodewright_nodes: tuple[str, ...]
    control_plane_nodes: tuple[str, ...]
    hosts: dict[str, str]
    """Nodewright node -> the machine that it is on: a kubelet's node in kind, itself in an embedded cluster."""
    addresses: dict[str, str]
    release: bool
    kube_proxy: bool
    dns: bool
    webhook: bool

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that take ordinary Pods."""
        return self.kubelet_nodes + self.nodewright_nodes

    @property
    def scoped(self) -> bool:
        """Whether our proxy keeps to Services that are labelled for it, as kube-proxy serves the others."""
        return self.release and self.kube_proxy

    @property
    def service_labels(self) -> dict[str, str]:
        """Labels that a Service needs to be served by us."""
        return {PROXY_NAME: "nodewright"} if self.scoped else {}


def look(live: Live) -> Facts:
    """Look at the cluster."""
    nodes = live.core.list_node().items
    ours = [node for node in nodes if node.status.node_info.container_runtime_version.startswith("nodewright://")]
    others = [node for node in nodes if node not in ours]
    control_plane = [n for n in others if "node-role.kubernetes.io/control-plane" in (n.metadata.labels or {})]
    return Facts(
        kubelet_nodes=tuple(node.metadata.name for node in others if node not in control_plane),
        nodewright_nodes=tuple(node.metadata.name for node in ours),
        control_plane_nodes=tuple(node.metadata.name for node in control_plane),
        hosts={n.metadata.name: (n.metadata.labels or {}).get("nodewright.dev/host", n.metadata.name) for n in ours},
        addresses={node.metadata.name: address(node) for node in nodes},
        release=_daemon_set(live, RELEASE_NAMESPACE, "nodewright-agent"),
        kube_proxy=_daemon_set(live, "kube-system", "kube-proxy"),
        dns=_dns(live),
        webhook=any(
            hook.metadata.name == "nodewright"
            for hook in client.AdmissionregistrationV1Api(live.api).list_validating_webhook_configuration().items
        ),
    )


def address(node: Any) -> str:
    """The node's address: InternalIP, else ExternalIP, as the agents have it in kind."""
    by_type = {each.type: each.address for each in node.status.addresses or []}
    return str(by_type.get("InternalIP") or by_type.get("ExternalIP") or "")


def _daemon_set(live: Live, namespace: str, name: str) -> bool:
    return any(each.metadata.name == name for each in live.apps.list_namespaced_daemon_set(namespace).items)


def _dns(live: Live) -> bool:
    return any(each.metadata.name == "kube-dns" for each in live.core.list_namespaced_service("kube-system").items)
