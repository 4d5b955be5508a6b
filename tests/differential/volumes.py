"""Claims and volumes that stand from the beginning, and Pods that use them.

All claims are bound, or can never be: kube-scheduler would wait for a controller to finish a binding that it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from differential.clusters import NODE_NAMES, ZONE, Object, lists_of
from nodewright.kube.client import Client
from nodewright.kube.resources import (
    CSINODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    STORAGECLASSES,
    Resource,
)
from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.storage_objects import Claim, CSINode, PersistentVolume, StorageClass

DRIVER = "csi.example.com"
NAMESPACES = ("blue", "red")
BIND_COMPLETED = {"pv.kubernetes.io/bind-completed": "yes"}

CLASSES = {"manual": "WaitForFirstConsumer", "now": "Immediate"}
# What a bound claim's volume has beyond the usual.
BOUND: dict[str, Object] = {
    "plain": {},
    "other": {},
    "third": {},
    "zoned": {"labels": {ZONE: "a"}},
    "zones": {"labels": {ZONE: "b__c"}},
    "racked": {"rack": "r1"},
    "alone": {"modes": ["ReadWriteOncePod"]},
}
FOR_ONE = {"claimName": "alone"}
# Claims that keep a Pod from running anywhere.
HOPELESS: dict[str, Object] = {
    "immediate": {"storageClassName": "now"},
    "nowhere": {"storageClassName": "manual"},
    "lost": {"storageClassName": "manual", "volumeName": "no-such-volume"},
}
# How many volumes of the driver some nodes take; the others do not say.
LIMITS = dict(zip(NODE_NAMES, (1, 2, 3, None, 1), strict=False))

Loaded = list[tuple[str, Any]]


def inline_volumes() -> Iterator[Object]:
    """Volumes without a claim, which some Pods may not share."""
    for read_only in (False, True):
        yield {"gcePersistentDisk": {"pdName": "disk", "readOnly": read_only}}
        yield {
            "iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2026-01.com.example:x", "lun": 0, "readOnly": read_only}
        }
        yield {"rbd": {"monitors": ["m1", "m2"], "image": "image", "readOnly": read_only}}


@st.composite
def volumes(draw: st.DrawFn, pod: Object) -> None:
    """One or two volumes, mostly with claims that are bound."""
    name = st.sampled_from((*BOUND, *BOUND, *BOUND, *HOPELESS, "missing"))
    claims = name.map(lambda claim: {"persistentVolumeClaim": {"claimName": claim}})
    chosen = draw(lists_of(claims | claims | st.sampled_from(list(inline_volumes())), 2, least=1))
    pod["spec"]["volumes"] = [{"name": f"v{number}", **volume} for number, volume in enumerate(chosen)]


async def make(client: Client) -> Loaded:
    """Create all of them; what our scheduler's storage is to be told."""
    for name, mode in CLASSES.items():
        body = {"metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": mode}
        await client.create(STORAGECLASSES, body)
    for node, limit in LIMITS.items():
        driver: Object = {"name": DRIVER, "nodeID": node}
        if limit is not None:
            driver["allocatable"] = {"count": limit}
        await client.create(CSINODES, {"metadata": {"name": node}, "spec": {"drivers": [driver]}})
    for namespace in NAMESPACES:
        for name, more in BOUND.items():
            await _make_bound(client, namespace, name, more)
        for name, spec in HOPELESS.items():
            annotations = BIND_COMPLETED if "volumeName" in spec else {}
            await _make_claim(client, namespace, name, ["ReadWriteOnce"], spec, annotations)
    return [
        *(await _loaded(client, STORAGECLASSES, StorageClass, "on_class")),
        *(await _loaded(client, PERSISTENTVOLUMES, PersistentVolume, "on_volume")),
        *(await _loaded(client, PERSISTENTVOLUMECLAIMS, Claim, "on_claim")),
        *(await _loaded(client, CSINODES, CSINode, "on_csi_node")),
    ]


def tell(core: SchedulerCore, loaded: Loaded) -> None:
    """Let our scheduler know of them."""
    for handler, item in loaded:
        getattr(core.state.storage, handler)(None, item)


async def _loaded(client: Client, resource: Resource, kind: type, handler: str) -> Loaded:
    return [(handler, item) for item in (await client.list(resource, type=kind)).items]


async def _make_bound(client: Client, namespace: str, name: str, more: Object) -> None:
    volume, modes = f"{namespace}-{name}", more.get("modes", ["ReadWriteOnce"])
    spec = {"storageClassName": "manual", "volumeName": volume}
    claim = await _make_claim(client, namespace, name, modes, spec, BIND_COMPLETED)
    reference = {"namespace": namespace, "name": name, "uid": claim["metadata"]["uid"]}
    body: Object = {
        "metadata": {"name": volume, "labels": more.get("labels", {})},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": modes,
            "storageClassName": "manual",
            "csi": {"driver": DRIVER, "volumeHandle": volume},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **reference},
        },
    }
    if "rack" in more:
        term = {"matchExpressions": [{"key": "rack", "operator": "In", "values": [more["rack"]]}]}
        body["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    await client.create(PERSISTENTVOLUMES, body)


async def _make_claim(
    client: Client, namespace: str, name: str, modes: list[str], spec: Object, annotations: dict[str, str]
) -> Object:
    body = {
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }
    return await client.create(PERSISTENTVOLUMECLAIMS, body)
