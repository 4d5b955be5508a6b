"""Pods and Nodes as the scheduler sees them: projections that hold only what a decision may read.

Decoding is a main cost of a scheduler that watches every Pod, so these structs name a small part of the API's fields;
what they do not name is skipped by the decoder. They are never written back: the scheduler writes bindings,
condition patches and events only.
"""

from __future__ import annotations

import msgspec

from nodewright.kube.api.meta import LabelSelector

# A resource name to a quantity as the API prints it ("100m", "1Gi").
Quantities = dict[str, str]


class Lean(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Base of the projections: camelCase on the wire, defaults left out when encoded."""


class OwnerReference(Lean):
    """An owner; the one with `controller` set decides for default spreading."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Lean):
    """The metadata a decision may read. Times stay RFC 3339 strings."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []


class ResourceRequirements(Lean):
    """Requests of a container or of a Pod; limits do not take part in scheduling."""

    requests: Quantities = {}


class ContainerPort(Lean):
    """A port of a container; only those with a host port matter."""

    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")
    protocol: str = "TCP"


class Container(Lean):
    """What of a container takes part: requests, host ports, image, and whether it is a sidecar."""

    name: str = ""
    image: str = ""
    resources: ResourceRequirements = msgspec.field(default_factory=ResourceRequirements)
    ports: list[ContainerPort] = []
    restart_policy: str | None = None


class Toleration(Lean):
    """A toleration; an empty operator means Equal, an empty effect all effects."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class Requirement(Lean):
    """One requirement of a node selector term, on a label or on a field."""

    key: str = ""
    operator: str = ""
    values: list[str] = []


class NodeSelectorTerm(Lean):
    """Requirements that must all hold. A term without any selects no node."""

    match_expressions: list[Requirement] = []
    match_fields: list[Requirement] = []


class NodeSelector(Lean):
    """Terms of which one must hold."""

    node_selector_terms: list[NodeSelectorTerm] = []


class PreferredTerm(Lean):
    """A term that adds its weight (1..100) to the score of the nodes it selects."""

    weight: int = 0
    preference: NodeSelectorTerm = msgspec.field(default_factory=NodeSelectorTerm)


class NodeAffinity(Lean):
    """Required and preferred node affinity."""

    required: NodeSelector | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[PreferredTerm] = msgspec.field(
        default_factory=list, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class PodAffinityTerm(Lean):
    """A set of Pods, and the label that says what counts as being in the same place as one of them.

    matchLabelKeys and mismatchLabelKeys are not named: the API server merges them into `label_selector`.
    """

    label_selector: LabelSelector | None = None
    namespaces: list[str] = []
    topology_key: str = ""
    # None: the Pod's own namespace (and `namespaces`); empty: all namespaces.
    namespace_selector: LabelSelector | None = None


class WeightedPodAffinityTerm(Lean):
    """A term that adds its weight (1..100) per matching Pod, or takes it away."""

    weight: int = 0
    pod_affinity_term: PodAffinityTerm = msgspec.field(default_factory=PodAffinityTerm)


class PodAffinity(Lean):
    """Required and preferred terms of podAffinity, or of podAntiAffinity."""

    required: list[PodAffinityTerm] = msgspec.field(
        default_factory=list, name="requiredDuringSchedulingIgnoredDuringExecution"
    )
    preferred: list[WeightedPodAffinityTerm] = msgspec.field(
        default_factory=list, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Lean):
    """The affinity of a Pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Lean):
    """How evenly matching Pods are spread over the values of a node label."""

    max_skew: int = 1
    topology_key: str = ""
    when_unsatisfiable: str = "DoNotSchedule"
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None
    match_label_keys: list[str] = []


class ImageVolume(Lean):
    """An OCI image mounted as a volume; ImageLocality counts it like a container's image."""

    reference: str = ""


class ClaimVolume(Lean):
    """A PersistentVolumeClaim of the Pod's namespace."""

    claim_name: str = ""
    read_only: bool = False


class EphemeralVolume(Lean):
    """A claim that is made for the Pod, named `POD-VOLUME`."""


class GCEDisk(Lean):
    """A disk that one node may write, or many may read."""

    pd_name: str = ""
    read_only: bool = False


class AWSDisk(Lean):
    """A volume that one node may hold."""

    volume_id: str = msgspec.field(default="", name="volumeID")
    read_only: bool = False


class ISCSIDisk(Lean):
    """An iSCSI target: the qualified name tells two apart."""

    iqn: str = ""
    read_only: bool = False


class RBDImage(Lean):
    """A Ceph image: monitors, pool and image tell two apart."""

    monitors: list[str] = []
    image: str = ""
    pool: str = ""
    read_only: bool = False


class Volume(Lean):
    """What of a volume takes part. The name matters for ephemeral claims only; it is dropped elsewhere (see pods)."""

    name: str = ""
    image: ImageVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    ephemeral: EphemeralVolume | None = None
    gce_persistent_disk: GCEDisk | None = None
    aws_elastic_block_store: AWSDisk | None = None
    iscsi: ISCSIDisk | None = None
    rbd: RBDImage | None = None

    @property
    def takes_part(self) -> bool:
        """Whether any rule of scheduling reads this volume."""
        return (
            self.image is not None
            or self.persistent_volume_claim is not None
            or self.ephemeral is not None
            or self.gce_persistent_disk is not None
            or self.aws_elastic_block_store is not None
            or self.iscsi is not None
            or self.rbd is not None
        )


class ResourceClaim(Lean):
    """A claim of devices; that there is one is all that is read."""

    name: str = ""


class SchedulingGate(Lean):
    """A gate that holds the Pod back until it is removed."""

    name: str = ""


class PodSpec(Lean):
    """The part of a Pod's spec that decides where it may run."""

    node_name: str = ""
    scheduler_name: str = ""
    priority: int = 0
    # "" reads as PreemptLowerPriority.
    preemption_policy: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []
    overhead: Quantities = {}
    resources: ResourceRequirements | None = None
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: list[Toleration] = []
    topology_spread_constraints: list[TopologySpreadConstraint] = []
    scheduling_gates: list[SchedulingGate] = []
    volumes: list[Volume] = []
    resource_claims: list[ResourceClaim] = []


class Condition(Lean):
    """A condition of a Pod or Node."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class ContainerStatus(Lean):
    """Resources that a running container holds; they differ from the spec during an in-place resize."""

    name: str = ""
    resources: ResourceRequirements | None = None
    allocated_resources: Quantities = {}


class PodStatus(Lean):
    """The part of a Pod's status that scheduling reads."""

    phase: str = ""
    nominated_node_name: str = ""
    start_time: str | None = None
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []


class Pod(Lean):
    """A Pod, projected."""

    metadata: ObjectMeta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def key(self) -> str:
        """Namespace and name, joined by a slash."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class Taint(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """A taint. Frozen, so that the taints of a node can be a dictionary key."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Lean):
    """Taints, and whether the node is cordoned."""

    unschedulable: bool = False
    taints: list[Taint] = []


class ContainerImage(Lean):
    """An image that the node holds."""

    names: list[str] | None = None
    size_bytes: int = 0


class NodeStatus(Lean):
    """What the node offers."""

    allocatable: Quantities = {}
    images: list[ContainerImage] = []


class Node(Lean):
    """A Node, projected."""

    metadata: ObjectMeta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)

    @property
    def key(self) -> str:
        """The node's name."""
        return self.metadata.name
