"""VolumeZone: bound volumes whose labels name a zone or region are used there only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Rejected, Scope
from ..pods import PodInfo, PodPart
from ..state import NodeView
from ..state.arrays import BoolArray
from ..state.columns import ABSENT
from ..state.storage import StorageState
from ..storage_objects import WAIT_FOR_FIRST_CONSUMER, PersistentVolume
from .volume_claims import ClaimError, has_claims, not_found
from .volume_details import elsewhere

REASON = "node(s) had no available volume zone"

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
# Label keys, each with the one of today that a node may have in its place.
KEYS = {
    "failure-domain.beta.kubernetes.io/zone": ZONE,
    "failure-domain.beta.kubernetes.io/region": REGION,
    ZONE: ZONE,
    REGION: REGION,
}
# A label key and the values that a node may have there.
Topology = tuple[str, frozenset[str]]


class VolumeZone(Plugin):
    """Rejects nodes whose zone or region is not among those of a bound volume (unresolvable).

    Nodes without any such label are in a cluster without zones, and pass.
    """

    name = "VolumeZone"
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.STORAGE_CLASS | Event.NODE_ADD | Event.NODE_LABEL | Event.CLAIM | Event.VOLUME

    def shares(self, pod: PodInfo) -> bool:
        """Every Pod has volumes of its own."""
        return not has_claims(pod)

    def prepare(self, ctx: Context) -> Rejected | None:
        """Find the zones and regions of the Pod's volumes."""
        if not ctx.pod.spec.volumes:
            return None
        try:
            ctx.data[self.name] = list(_topologies(ctx.nodes.state.storage, ctx.pod))
        except ClaimError as error:
            return Rejected(str(error))
        return None

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods without volumes that have such labels."""
        topologies: list[Topology] | None = ctx.data.get(self.name)
        if not topologies:
            return None
        ok = np.ones(len(ctx.nodes), dtype=np.bool_)
        for key, values in topologies:
            ok &= _has_value(ctx.nodes, key, values)
        placed = np.zeros(len(ctx.nodes), dtype=np.bool_)
        for key in KEYS:
            placed |= ctx.nodes.label(key)[0] != ABSENT
        return FilterResult(ok | ~placed, REASON, unresolvable=True)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """Where the volumes are, and where the node is."""
        return list(elsewhere(ctx, position, ctx.data.get(self.name) or []))


def _has_value(nodes: NodeView, key: str, values: frozenset[str]) -> BoolArray:
    ids, column = nodes.label(key)
    found: BoolArray = np.isin(ids, [n for value in values if (n := column.number(value)) is not None])
    if (today := KEYS[key]) != key:
        found |= (ids == ABSENT) & _has_value(nodes, today, values)
    return found


def _topologies(storage: StorageState, pod: PodInfo) -> Iterator[Topology]:
    """Raises ClaimError where a volume should be there and is not. Ephemeral claims are left out, as upstream does."""
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is None:
            continue
        found = _bound_volume(storage, pod.pod.metadata.namespace, volume.persistent_volume_claim.claim_name)
        if found is None:
            continue
        for key in KEYS:
            values = zones(found.metadata.labels.get(key, ""))
            if values:
                yield key, values


def _bound_volume(storage: StorageState, namespace: str, name: str) -> PersistentVolume | None:
    claim = storage.claims.get(f"{namespace}/{name}")
    if claim is None:
        raise ClaimError(not_found(name))
    if claim.spec.volume_name:
        volume = storage.volumes.get(claim.spec.volume_name)
        if volume is None:
            raise ClaimError(f'persistentvolume "{claim.spec.volume_name}" not found')
        return volume
    if not claim.class_name:
        raise ClaimError("PersistentVolumeClaim had no pv name and storageClass name")
    storage_class = storage.classes.get(claim.class_name)
    if storage_class is None:
        raise ClaimError(f'storageclass.storage.k8s.io "{claim.class_name}" not found')
    if storage_class.volume_binding_mode is None:
        raise ClaimError(f'VolumeBindingMode not set for StorageClass "{claim.class_name}"')
    if storage_class.volume_binding_mode != WAIT_FOR_FIRST_CONSUMER:
        raise ClaimError("PersistentVolume had no name")
    return None


def zones(text: str) -> frozenset[str]:
    """The zones of a label, joined by two underscores; none where the label cannot be read, and is then ignored."""
    parts = [part.strip() for part in text.split("__")]
    return frozenset(parts) if all(parts) else frozenset()
