"""What is behind volumes, as the scheduler sees it: claims, volumes, classes, and what CSI drivers tell of nodes.

As in `objects`, these are projections: a cluster may hold tens of thousands of claims and volumes, so only what a
decision may read is decoded, annotations included. They are never written back; the scheduler sends patches.
"""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import msgspec

from nodewright.kube.api.meta import LabelSelector

from .objects import Lean, NodeSelector, OwnerReference, Quantities

WAIT_FOR_FIRST_CONSUMER = "WaitForFirstConsumer"
READ_WRITE_ONCE_POD = "ReadWriteOncePod"
# A class with this provisioner has hand-made volumes only.
NO_PROVISIONER = "kubernetes.io/no-provisioner"

SELECTED_NODE = "volume.kubernetes.io/selected-node"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"


class StorageMeta(Lean):
    """The metadata that every kind needs."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None


class ClaimAnnotations(Lean):
    """The annotations of a claim that take part. None: not there."""

    # The class in the days before `storageClassName`; it still takes precedence.
    storage_class: str | None = msgspec.field(default=None, name="volume.beta.kubernetes.io/storage-class")
    # For which node a volume is to be made. The scheduler sets it, the provisioner takes it away when it can't.
    selected_node: str | None = msgspec.field(default=None, name=SELECTED_NODE)
    # Set by the volume controller once claim and volume point at each other.
    bind_completed: str | None = msgspec.field(default=None, name="pv.kubernetes.io/bind-completed")


class ClaimMeta(StorageMeta):
    """Metadata of a claim; the owner tells for which Pod an ephemeral claim was made."""

    annotations: ClaimAnnotations = msgspec.field(default_factory=ClaimAnnotations)
    owner_references: list[OwnerReference] = []


class ClaimResources(Lean):
    """How much storage is asked for."""

    requests: Quantities = {}


class ClaimSpec(Lean):
    """What the claim asks for, and the volume that it has got."""

    access_modes: list[str] = []
    selector: LabelSelector | None = None
    resources: ClaimResources = msgspec.field(default_factory=ClaimResources)
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str | None = None
    volume_attributes_class_name: str | None = None


class ClaimStatus(Lean):
    """The phase: Pending, Bound or Lost."""

    phase: str = ""


class Claim(Lean):
    """A PersistentVolumeClaim, projected."""

    metadata: ClaimMeta
    spec: ClaimSpec = msgspec.field(default_factory=ClaimSpec)
    status: ClaimStatus = msgspec.field(default_factory=ClaimStatus)

    @property
    def key(self) -> str:
        """Namespace and name, joined by a slash."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def class_name(self) -> str:
        """The storage class; "" for none."""
        beta = self.metadata.annotations.storage_class
        return beta if beta is not None else self.spec.storage_class_name or ""

    @property
    def is_bound(self) -> bool:
        """Whether claim and volume point at each other."""
        return bool(self.spec.volume_name) and self.metadata.annotations.bind_completed is not None


class VolumeAnnotations(Lean):
    """The annotations of a volume that take part."""

    storage_class: str | None = msgspec.field(default=None, name="volume.beta.kubernetes.io/storage-class")


class VolumeMeta(StorageMeta):
    """Metadata of a volume; labels are for the selectors of claims, and tell zone and region."""

    labels: dict[str, str] = {}
    annotations: VolumeAnnotations = msgspec.field(default_factory=VolumeAnnotations)


class ClaimRef(Lean):
    """The claim that a volume belongs to. No UID: it was set aside for a claim of that name by hand."""

    namespace: str = ""
    name: str = ""
    uid: str = ""

    @property
    def key(self) -> str:
        """Namespace and name, joined by a slash."""
        return f"{self.namespace}/{self.name}"

    def is_for(self, claim: Claim) -> bool:
        """Whether it names this claim (upstream: IsVolumeBoundToClaim)."""
        meta = claim.metadata
        return self.name == meta.name and self.namespace == meta.namespace and (not self.uid or self.uid == meta.uid)


class CSISource(Lean):
    """A volume of a CSI driver."""

    driver: str = ""
    volume_handle: str = ""


class VolumeNodeAffinity(Lean):
    """From which nodes the volume can be reached."""

    required: NodeSelector | None = None


class VolumeSpec(Lean):
    """What the volume offers, and to whom."""

    capacity: Quantities = {}
    access_modes: list[str] = []
    claim_ref: ClaimRef | None = None
    csi: CSISource | None = None
    node_affinity: VolumeNodeAffinity | None = None
    storage_class_name: str = ""
    volume_mode: str | None = None
    volume_attributes_class_name: str | None = None


class VolumeStatus(Lean):
    """The phase: only an Available volume can be given to a claim that it was not set aside for."""

    phase: str = ""


class PersistentVolume(Lean):
    """A PersistentVolume, projected."""

    metadata: VolumeMeta
    spec: VolumeSpec = msgspec.field(default_factory=VolumeSpec)
    status: VolumeStatus = msgspec.field(default_factory=VolumeStatus)

    @property
    def key(self) -> str:
        """The volume's name."""
        return self.metadata.name

    @property
    def class_name(self) -> str:
        """The storage class; "" for none."""
        beta = self.metadata.annotations.storage_class
        return beta if beta is not None else self.spec.storage_class_name

    @property
    def affinity(self) -> NodeSelector | None:
        """The nodes that reach it; None for all."""
        return self.spec.node_affinity.required if self.spec.node_affinity is not None else None


class TopologyRequirement(Lean):
    """A node label and its allowed values."""

    key: str = ""
    values: list[str] = []


class TopologyTerm(Lean):
    """Requirements that must all hold. A term without any selects no node."""

    match_label_expressions: list[TopologyRequirement] = []


class StorageClass(Lean):
    """A StorageClass, projected."""

    metadata: StorageMeta
    provisioner: str = ""
    volume_binding_mode: str | None = None
    allowed_topologies: list[TopologyTerm] = []

    @property
    def key(self) -> str:
        """The class's name."""
        return self.metadata.name


class NodeAllocatable(Lean):
    """How many volumes of a driver a node takes; None for no limit."""

    count: int | None = None


class NodeDriver(Lean):
    """A CSI driver on a node."""

    name: str = ""
    allocatable: NodeAllocatable | None = None


class CSINodeSpec(Lean):
    """The drivers on a node; the API prints null for none."""

    drivers: list[NodeDriver] | None = None


class CSINode(Lean):
    """A CSINode, projected: it has the name of its node."""

    metadata: StorageMeta
    spec: CSINodeSpec = msgspec.field(default_factory=CSINodeSpec)

    @property
    def key(self) -> str:
        """The node's name."""
        return self.metadata.name

    @property
    def limits(self) -> dict[str, int]:
        """How many volumes of each driver may be attached; drivers without a limit are left out."""
        return {
            driver.name: driver.allocatable.count
            for driver in self.spec.drivers or ()
            if driver.allocatable is not None and driver.allocatable.count is not None
        }


class CSIDriverSpec(Lean):
    """Whether the driver publishes how much storage is left."""

    storage_capacity: bool = False


class CSIDriver(Lean):
    """A CSIDriver, projected."""

    metadata: StorageMeta
    spec: CSIDriverSpec = msgspec.field(default_factory=CSIDriverSpec)

    @property
    def key(self) -> str:
        """The driver's name."""
        return self.metadata.name


class CSIStorageCapacity(Lean):
    """How much storage of a class is left for the nodes of a topology segment."""

    metadata: StorageMeta
    storage_class_name: str = ""
    # None: no node reaches it; empty: all do.
    node_topology: LabelSelector | None = None
    capacity: str | None = None
    maximum_volume_size: str | None = None

    @property
    def key(self) -> str:
        """Namespace and name, joined by a slash."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def limit(self) -> str | None:
        """The size of the largest volume that can be made, as a quantity; None when that is not known."""
        return self.maximum_volume_size if self.maximum_volume_size is not None else self.capacity


class AttachmentSource(Lean):
    """What is attached; inline volumes of migrated Pods have no volume name and are not counted."""

    persistent_volume_name: str | None = None


class AttachmentSpec(Lean):
    """Which volume is, or is to be, attached where and by whom."""

    attacher: str = ""
    node_name: str = ""
    source: AttachmentSource = msgspec.field(default_factory=AttachmentSource)


class VolumeAttachment(Lean):
    """A VolumeAttachment, projected."""

    metadata: StorageMeta
    spec: AttachmentSpec = msgspec.field(default_factory=AttachmentSpec)

    @property
    def key(self) -> str:
        """The attachment's name."""
        return self.metadata.name
