"""Claims, volumes and what belongs to them for scheduler tests, in few words; and what the default plugins say."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from nodewright.scheduler import cycle
from nodewright.scheduler.objects import Node, Pod
from nodewright.scheduler.plugin import Context
from nodewright.scheduler.pods import PodInfo
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.state import ClusterState, NodeView
from nodewright.scheduler.storage_objects import (
    Claim,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    StorageClass,
    VolumeAttachment,
)

from .scheduler_builders import info, make_pod

_versions = itertools.count(1)
SELECTED = "volume.kubernetes.io/selected-node"


def make_claim(
    name: str,
    class_name: str | None = "wait",
    size: str = "1Gi",
    *,
    volume: str = "",
    bound: bool | None = None,
    selected: str = "",
    phase: str = "",
    deleting: bool = False,
    owner: str = "",
    namespace: str = "default",
    modes: tuple[str, ...] = ("ReadWriteOnce",),
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Claim:
    """A claim; with a volume it is bound unless told otherwise."""
    notes = dict(annotations or {})
    if bound if bound is not None else volume:
        notes["pv.kubernetes.io/bind-completed"] = "yes"
    if selected:
        notes[SELECTED] = selected
    meta: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "resourceVersion": str(next(_versions)),
        "annotations": notes,
    }
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if owner:
        meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": True}]
    body = {
        "metadata": meta,
        "spec": {
            "accessModes": list(modes),
            "resources": {"requests": {"storage": size}},
            "volumeName": volume,
            "storageClassName": class_name,
            **spec,
        },
        "status": {"phase": phase or ("Bound" if volume else "Pending")},
    }
    return msgspec.convert(body, Claim)


def make_volume(
    name: str,
    class_name: str = "wait",
    size: str = "1Gi",
    *,
    affinity: dict[str, Any] | list[Any] | None = None,
    claim: str = "",
    claim_uid: str = "",
    phase: str = "Available",
    labels: dict[str, str] | None = None,
    modes: tuple[str, ...] = ("ReadWriteOnce",),
    deleting: bool = False,
    csi: tuple[str, str] | None = None,
    **spec: Any,
) -> PersistentVolume:
    """A volume. `affinity` is a label with its value or values, or a list of terms."""
    body: dict[str, Any] = {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(next(_versions)),
            "labels": labels or {},
        },
        "spec": {"capacity": {"storage": size}, "accessModes": list(modes), "storageClassName": class_name, **spec},
        "status": {"phase": phase},
    }
    if deleting:
        body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if claim:
        body["spec"]["claimRef"] = {"namespace": "default", "name": claim, "uid": claim_uid}
    if csi is not None:
        body["spec"]["csi"] = {"driver": csi[0], "volumeHandle": csi[1]}
    if affinity is not None:
        terms = affinity if isinstance(affinity, list) else [term(affinity)]
        body["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    return msgspec.convert(body, PersistentVolume)


def term(labels: dict[str, Any]) -> dict[str, Any]:
    """A term that wants each label to have the value, or one of the values."""
    return {
        "matchExpressions": [
            {"key": key, "operator": "In", "values": [value] if isinstance(value, str) else list(value)}
            for key, value in labels.items()
        ]
    }


def make_class(
    name: str = "wait",
    provisioner: str = "kubernetes.io/no-provisioner",
    mode: str | None = "WaitForFirstConsumer",
    *topologies: dict[str, list[str]],
) -> StorageClass:
    """A class; each topology is a term of labels with their values."""
    allowed = [{"matchLabelExpressions": [{"key": k, "values": v} for k, v in one.items()]} for one in topologies]
    body = {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode}
    return msgspec.convert({**body, "allowedTopologies": allowed}, StorageClass)


def make_csi_node(name: str, **limits: int | None) -> CSINode:
    """A node's drivers with their limits, None for none; two underscores in a driver's name stand for a dot."""
    drivers = [
        {"name": driver.replace("__", "."), "allocatable": None if count is None else {"count": count}}
        for driver, count in limits.items()
    ]
    return msgspec.convert({"metadata": {"name": name}, "spec": {"drivers": drivers or None}}, CSINode)


def make_driver(name: str, storage_capacity: bool = True) -> CSIDriver:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"storageCapacity": storage_capacity}}, CSIDriver)


def make_capacity(
    name: str, class_name: str, topology: dict[str, Any] | None, capacity: str | None, largest: str | None = None
) -> CSIStorageCapacity:
    """Storage that is left; `topology` is a label selector, None for no node."""
    body = {
        "metadata": {"name": name, "namespace": "driver"},
        "storageClassName": class_name,
        "nodeTopology": topology,
        "capacity": capacity,
        "maximumVolumeSize": largest,
    }
    return msgspec.convert(body, CSIStorageCapacity)


def make_attachment(name: str, node: str, volume: str | None, attacher: str = "csi") -> VolumeAttachment:
    spec = {"attacher": attacher, "nodeName": node, "source": {"persistentVolumeName": volume}}
    return msgspec.convert({"metadata": {"name": name}, "spec": spec}, VolumeAttachment)


def claim_pod(*claims: str, **options: Any) -> Pod:
    """A Pod that uses claims."""
    volumes = [{"name": f"v{i}", "persistentVolumeClaim": {"claimName": name}} for i, name in enumerate(claims)]
    return make_pod(volumes=volumes, **options)


def ephemeral_pod(*names: str, **options: Any) -> Pod:
    """A Pod for which claims are made."""
    return make_pod(volumes=[{"name": name, "ephemeral": {}} for name in names], **options)


def put(state: ClusterState, *objects: Any) -> ClusterState:
    """Add objects of any kind, or replace them; gives the state."""
    storage = state.storage
    takers: dict[type, tuple[Any, dict[str, Any]]] = {
        Claim: (storage.on_claim, storage.claims),
        PersistentVolume: (storage.on_volume, storage.volumes),
        StorageClass: (storage.on_class, storage.classes),
        CSINode: (storage.on_csi_node, storage.csi_nodes),
        CSIDriver: (storage.on_csi_driver, storage.drivers),
        CSIStorageCapacity: (storage.on_capacity, storage.capacities),
        VolumeAttachment: (storage.on_attachment, {}),
    }
    for item in objects:
        if isinstance(item, Node):
            state.set_node(item)
        elif isinstance(item, Pod):
            state.add_pod(info(item), item.spec.node_name)
        else:
            take, known = takers[type(item)]
            take(known.get(item.key), item)
    return state


def cluster(*objects: Any) -> ClusterState:
    return put(ClusterState(capacity=1), *objects)


class Verdict:
    """What the default plugins say about a Pod: where it may run, the message, and what eviction can't change."""

    def __init__(self, state: ClusterState, pod: Pod | PodInfo, profile: Profile | None = None) -> None:
        profile = profile or Profile()
        pod_info = info(pod) if isinstance(pod, Pod) else pod
        data: dict[str, Any] = {}
        preparation = cycle.prepare(profile, Context(pod_info, NodeView(state), data))
        ctx = Context(pod_info, cycle.confined_view(state, preparation), data)
        failures: list[cycle.Failure] = []
        alive = ctx.nodes.present
        if preparation.rejected is None:
            alive = cycle.run_filters(profile.filters, ctx, failures)
        size = len(ctx.nodes)
        self.fits = {ctx.nodes.name(i) for i in range(size) if alive[i]}
        self.plugins = {failure.plugin for failure in failures} | set(preparation.plugins)
        self.unresolvable = {ctx.nodes.name(i) for f in failures for i in range(size) if cycle.unresolvable(f)[i]}
        text = cycle.diagnose(state, preparation, failures, int(ctx.nodes.present.sum())).message()
        # "0/2 nodes are available: 2 reason." -> "2 reason"
        self.reason = text.partition(": ")[2].removesuffix(".")
