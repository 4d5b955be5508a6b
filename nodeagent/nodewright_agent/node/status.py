"""The status of a node from its facts and settings, and the patch that brings the API to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from nodewright_agent.node.facts import HostFacts
from nodewright_agent.runtime.images.model import Image

KUBELET_VERSION = "v1.36.3"
"""The kubelet whose behaviour is followed; the version skew policy and clients look at it."""
RUNTIME_VERSION = "nodewright://0.1.0"
MAX_IMAGES = 50
MAX_NAMES = 5

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
    reserved = quantity.value(config.reserved_memory) + quantity.value(config.eviction_memory) + huge
    milli = max(0, facts.cpus * 1000 - quantity.milli(config.reserved_cpu))
    return {
        "cpu": f"{milli}m" if milli % 1000 else str(milli // 1000),
        "memory": f"{max(0, facts.memory - reserved) // 1024}Ki",
        # nodefs.available<10% is kept free.
        "ephemeral-storage": str(facts.disk * 9 // 10),
        "pods": str(config.max_pods),
        **{name: _bytes(amount) for name, amount in facts.hugepages.items()},
    }


def node_status(
    config: AgentConfig, facts: HostFacts, conditions: Sequence[NodeCondition], images: Iterable[Image]
) -> NodeStatus:
    """Return the whole status that this node owns."""
    return NodeStatus(
        capacity=capacity(config, facts),
        allocatable=allocatable(config, facts),
        conditions=list(conditions),
        addresses=[NodeAddress(config.node_address_type, config.node_ip), NodeAddress("Hostname", config.node_name)],
        daemon_endpoints=NodeDaemonEndpoints(DaemonEndpoint(config.port)),
        node_info=NodeSystemInfo(
            machine_id=facts.machine_id,
            system_uuid=facts.system_uuid,
            boot_id=facts.boot_id,
            kernel_version=facts.kernel_version,
            os_image=facts.os_image,
            container_runtime_version=RUNTIME_VERSION,
            kubelet_version=KUBELET_VERSION,
            kube_proxy_version="",
            operating_system="linux",
            architecture=facts.architecture,
        ),
        images=_images(images),
        # Only what is true: no recursive read-only mounts and no user namespaces yet.
        runtime_handlers=[
            NodeRuntimeHandler(
                features=NodeRuntimeHandlerFeatures(recursive_read_only_mounts=False, user_namespaces=False)
            )
        ],
        features=NodeFeatures(supplemental_groups_policy=True),
    )


def changed(current: NodeStatus, wanted: NodeStatus) -> bool:
    """Tell whether anything but heartbeat times differs."""
    return _without_heartbeats(current, wanted) != _without_heartbeats(wanted, wanted)


def node_status_patch(wanted: NodeStatus) -> dict[str, Any]:
    """Return the strategic patch: conditions merge by type, so that those of others stay; addresses are replaced."""
    body: dict[str, Any] = msgspec.to_builtins(wanted)
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
