"""The status of a node from its facts and settings, and the patch that brings the API to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nodewright.kube import quantity
from nodewright.kube.objects import (
    ContainerImage,
    DaemonEndpoint,
    NodeAddress,
    NodeCondition,
    NodeDaemonEndpoints,
    NodeFeatures,
    NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures,
    NodeStatus,
    NodeSystemInfo,
)
from nodewright_agent.config import AgentConfig
from nodewright_agent.configcheck import BUILT_IN_HANDLERS
from nodewright_agent.eviction import reading, signals
from nodewright_agent.node.facts import HostFacts
from nodewright_agent.runtime.features import RuntimeFeatures
from nodewright_agent.runtime.images.model import Image

KUBELET_VERSION = "v1.36.3"
"""The kubelet whose behaviour is followed; the version skew policy and clients look at it."""
RUNTIME_VERSION = "nodewright://0.1.0"
MAX_IMAGES = 50
MAX_NAMES = 5

DECLARED = (
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
)
"""Features of this node by which the scheduler and admission go (KEP-5328): only what is true, sorted."""
DECLARED_WITH_USER_NAMESPACES = ("UserNamespacesHostNetworkSupport",)
"""Those of a host that has user namespaces for pods: with the host's network too (KEP-5607)."""


class OtherRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """What another runtime, that runs the node's containers, says of itself."""

    version: str
    handlers: Mapping[str, RuntimeFeatures]
    supplemental_groups_policy: bool
    user_namespaces_host_network: bool


_HEARTBEATS = ("lastHeartbeatTime",)


def capacity(config: AgentConfig, facts: HostFacts) -> dict[str, str]:
    """Return the node's capacity."""
    return {
        "cpu": str(facts.cpus),
        "memory": f"{facts.memory // 1024}Ki",
        "ephemeral-storage": f"{facts.disk // 1024}Ki",
        "pods": str(config.max_pods),
        **{name: _bytes(amount) for name, amount in facts.hugepages.items()},
    }


def allocatable(config: AgentConfig, facts: HostFacts) -> dict[str, str]:
    """Return what pods may ask for: capacity less what is reserved, and less the eviction threshold of memory."""
    huge = sum(facts.hugepages.values())
    kept = reading.settings(config).thresholds
    evicted = signals.reserved(kept, signals.MEMORY, facts.memory)
    reserved = quantity.value(config.reserved_memory) + evicted + huge
    disk = signals.reserved(kept, signals.NODE_FS, facts.disk) + quantity.value(config.reserved_ephemeral_storage)
    milli = unreserved_cpu(config, facts)
    return {
        "cpu": f"{milli}m" if milli % 1000 else str(milli // 1000),
        "memory": f"{max(0, facts.memory - reserved) // 1024}Ki",
        "ephemeral-storage": str(max(0, facts.disk - disk)),
        "pods": str(config.max_pods),
        **{name: _bytes(amount) for name, amount in facts.hugepages.items()},
    }


def unreserved_cpu(config: AgentConfig, facts: HostFacts) -> int:
    """Return the thousandths of a core that pods may use together."""
    return max(0, facts.cpus * 1000 - quantity.milli(config.reserved_cpu))


def extended(amounts: Mapping[str, str]) -> dict[str, str]:
    """Return the extended resources (``example.com/gpu``): others put them into the Node's capacity.

    The node makes all of them allocatable, as kubelet does.
    """
    return {
        name: amount
        for name, amount in amounts.items()
        if "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")
    }


def node_status(
    config: AgentConfig,
    facts: HostFacts,
    conditions: Sequence[NodeCondition],
    images: Iterable[Image],
    present: NodeStatus | None = None,
    *,
    user_namespaces: bool = False,
    recursive_read_only: bool = False,
    handlers: Mapping[str, RuntimeFeatures] | None = None,
    other: OtherRuntime | None = None,
) -> NodeStatus:
    """Return the whole status that this node owns; ``present`` is what the API has, for extended resources.

    ``handlers``: what those of the settings can do of what the node can. ``other``: it runs the containers, not we.
    """
    node = RuntimeFeatures(recursive_read_only=recursive_read_only, user_namespaces=user_namespaces)
    known = {**dict.fromkeys(BUILT_IN_HANDLERS, node), **(handlers or {})}
    others = extended(present.capacity) if present is not None else {}
    return NodeStatus(
        capacity={**capacity(config, facts), **others},
        allocatable={**allocatable(config, facts), **others},
        conditions=list(conditions),
        addresses=[NodeAddress(config.node_address_type, config.node_ip), NodeAddress("Hostname", config.node_name)],
        daemon_endpoints=NodeDaemonEndpoints(DaemonEndpoint(config.port)),
        node_info=NodeSystemInfo(
            machine_id=facts.machine_id,
            system_uuid=facts.system_uuid,
            boot_id=facts.boot_id,
            kernel_version=facts.kernel_version,
            os_image=facts.os_image,
            container_runtime_version=other.version if other is not None else RUNTIME_VERSION,
            kubelet_version=KUBELET_VERSION,
            kube_proxy_version="",
            operating_system="linux",
            architecture=facts.architecture,
        ),
        images=_images(images),
        runtime_handlers=_handlers(other.handlers)
        if other is not None
        else [
            _handler(name, node, known.get(name) or RuntimeFeatures())
            for name in (*BUILT_IN_HANDLERS, *sorted(config.runtime_handlers))
        ],
        features=NodeFeatures(supplemental_groups_policy=other is None or other.supplemental_groups_policy),
        declared_features=_declared(user_namespaces, other),
    )


def _handlers(handlers: Mapping[str, RuntimeFeatures]) -> list[NodeRuntimeHandler]:
    everything = RuntimeFeatures(recursive_read_only=True, user_namespaces=True)
    return [_handler(name, everything, own) for name, own in sorted(handlers.items())]


def _declared(user_namespaces: bool, other: OtherRuntime | None) -> list[str]:
    # The streams of another runtime are its own: old ones have no WebSockets of today's protocols.
    own = [name for name in DECLARED if other is None or name != "ExtendWebSocketsToKubelet"]
    if other is not None:
        user_namespaces = other.user_namespaces_host_network
    return sorted((*own, *(DECLARED_WITH_USER_NAMESPACES if user_namespaces else ())))


def _handler(name: str, node: RuntimeFeatures, own: RuntimeFeatures) -> NodeRuntimeHandler:
    """Describe a runtime handler by what is true of the host and of its program."""
    features = NodeRuntimeHandlerFeatures(
        recursive_read_only_mounts=node.recursive_read_only and own.recursive_read_only,
        user_namespaces=node.user_namespaces and own.user_namespaces,
    )
    return NodeRuntimeHandler(name=name, features=features)


def changed(current: NodeStatus, wanted: NodeStatus) -> bool:
    """Tell whether anything but heartbeat times differs."""
    return _without_heartbeats(current, wanted) != _without_heartbeats(wanted, wanted)


def node_status_patch(wanted: NodeStatus, present: NodeStatus | None = None) -> dict[str, Any]:
    """Return the strategic patch: conditions merge by type, so that those of others stay; addresses are replaced.

    What is allocatable in the API and not any more is taken away: an extended resource that somebody removed.
    """
    body: dict[str, Any] = msgspec.to_builtins(wanted)
    gone = set(present.allocatable) - set(wanted.allocatable) if present is not None else set()
    body["allocatable"] |= dict.fromkeys(gone)
    body["addresses"] = [*body["addresses"], {"$patch": "replace"}]
    body["images"] = body.get("images", [])
    return {"status": body}


def _without_heartbeats(status: NodeStatus, like: NodeStatus) -> dict[str, Any]:
    """Return the fields that we own, without heartbeat times."""
    owned = {condition.type for condition in like.conditions}
    body: dict[str, Any] = msgspec.to_builtins(status)
    fields = set(msgspec.to_builtins(like)) | {"images"}
    conditions = [one for one in body.get("conditions", []) if one["type"] in owned]
    for one in conditions:
        for name in _HEARTBEATS:
            one.pop(name, None)
    body["conditions"] = sorted(conditions, key=lambda one: str(one["type"]))
    return {name: body.get(name) for name in fields}


def _images(images: Iterable[Image]) -> list[ContainerImage]:
    """Return the largest images first, at most 50, each with at most five names (upstream's bounds)."""
    largest = sorted(images, key=lambda image: -image.size)[:MAX_IMAGES]
    return [ContainerImage([*image.digests, *image.names][:MAX_NAMES], image.size) for image in largest]


def _bytes(amount: int) -> str:
    """Write bytes as Kubernetes' canonical form does: the largest binary suffix without a fraction."""
    for shift, suffix in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
        if amount and amount % (1 << shift) == 0:
            return f"{amount >> shift}{suffix}"
    return str(amount)
