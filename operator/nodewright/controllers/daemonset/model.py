"""The fields of pods, nodes, revisions and DaemonSets that the controller uses; everything else is dropped on ingest.

A cluster's pods are many and these structs are what the operator keeps of them, so they are kept small.
"""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from sys import intern
from typing import ClassVar

import msgspec

from nodewright.controllers.daemonset import compact
from nodewright.controllers.daemonset.extensions import NodeOverride, NodeReadiness, RollingUpdate
from nodewright.kube.api.base import KubeStruct
from nodewright.kube.objects import Affinity, Condition, LabelSelector, OwnerReference, Taint, Toleration

HASH_LABEL = "controller-revision-hash"
GENERATION_LABEL = "pod-template-generation"
GENERATION_ANNOTATION = "deprecated.daemonset.template.generation"
# On pods: the node class (see `sizes`) that the pod was made for.
NODE_CLASS_ANNOTATION = "nodewright.dev/node-class"
# On pods: the restart counts of containers at the moment of an update in place (see `inplace`).
IN_PLACE_ANNOTATION = "nodewright.dev/in-place-update"
# On pods that pull images ahead of a rollout (see `prepull`): the DaemonSet's name, and the revision's hash.
PRE_PULL_OF_LABEL = "nodewright.dev/pre-pull-of"
PRE_PULL_REVISION_LABEL = "nodewright.dev/pre-pull-revision"
# On pods that stand for a node's static pods, by kubelets.
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
# On DaemonSets: paused, the way for kinds without spec.paused.
PAUSED_ANNOTATION = "nodewright.dev/paused"
# On DaemonSets: `HASH/N`, step N (from 1) of this revision's rollout need wait no longer for a person.
RESUMED_STEP_ANNOTATION = "nodewright.dev/resumed-step"
# On DaemonSets: `HASH`, failures of this revision's pods stop nothing any more.
RESUMED_FAILURES_ANNOTATION = "nodewright.dev/resumed-failures"


class OwnAnnotations(KubeStruct):
    """The annotations of pods that the controller puts there, and the kubelet's on mirrors of static pods."""

    node_class: str = msgspec.field(default="", name=NODE_CLASS_ANNOTATION)
    in_place: str = msgspec.field(default="", name=IN_PLACE_ANNOTATION)
    mirror: str = msgspec.field(default="", name=MIRROR_ANNOTATION)


class Meta(KubeStruct):
    """Metadata without finalizers and foreign annotations."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: OwnAnnotations | None = None
    owner_references: list[OwnerReference] = []

    def __post_init__(self) -> None:
        """Share what many have in common."""
        self.namespace = intern(self.namespace)
        self.labels = compact.labels(self.labels)
        self.owner_references = compact.owners(self.owner_references)


class PodCondition(KubeStruct):
    """A pod condition; of interest are Ready's."""

    type: str
    status: str
    last_transition_time: str | None = None


class Waiting(KubeStruct):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class Running(KubeStruct):
    """Since when a container runs."""

    started_at: str | None = None


class ContainerState(KubeStruct):
    """The state of a container; an ended one has neither."""

    waiting: Waiting | None = None
    running: Running | None = None


class ContainerStatus(KubeStruct):
    """A container as the node reports it. `image_id` is set once the image is on the node."""

    name: str = ""
    restart_count: int = 0
    ready: bool = False
    image_id: str = ""
    state: ContainerState | None = None

    def __post_init__(self) -> None:
        """Share what many have in common."""
        self.name = intern(self.name)
        self.image_id = intern(self.image_id)


class PodStatus(KubeStruct):
    """Phase, containers, and of the conditions the one that is asked for: Ready."""

    phase: str = "Pending"
    conditions: list[PodCondition] = []
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []

    def __post_init__(self) -> None:
        """Drop what is not asked for, share what many have in common."""
        self.phase = intern(self.phase)
        ready = [condition for condition in self.conditions if condition.type == "Ready"]
        content = [(condition.status, condition.last_transition_time) for condition in ready]
        self.conditions = compact.shared(("ready", *content), ready)


class PodSpec(KubeStruct):
    """Where the pod runs, or is meant to run: of its affinity only the node that it names is kept, as `pinned`."""

    node_name: str = ""
    priority: int = 0
    affinity: Affinity | None = None
    pinned: str = ""

    def __post_init__(self) -> None:
        """Drop what is not asked for, share what many have in common."""
        self.node_name = intern(self.node_name)
        self.pinned = intern(self.pinned or compact.pinned_to(self.affinity))
        self.affinity = None


class Pod(KubeStruct):
    """A pod as this controller sees it."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Pod"

    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def deleting(self) -> bool:
        """Whether it has a deletionTimestamp."""
        return self.metadata.deletion_timestamp is not None

    @property
    def terminal(self) -> bool:
        """Whether it ran to its end (Succeeded or Failed)."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def target_node(self) -> str | None:
        """The node it runs on or is pinned to; None for pods that are not pinned."""
        return self.spec.node_name or self.spec.pinned or None


class NodeSpec(KubeStruct):
    """Taints; `unschedulable` shows as one."""

    taints: list[Taint] = []


class NodeMeta(KubeStruct):
    """Name and labels."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    namespace: str = ""
    deletion_timestamp: str | None = None


class Node(KubeStruct):
    """A node as this controller sees it; its status, which changes often, is none of it."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Node"

    metadata: NodeMeta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)

    @property
    def key(self) -> str:
        """The name."""
        return self.metadata.name


class Revision(KubeStruct):
    """A ControllerRevision; `data` holds `{"spec": {"template": {...}}}` as it came."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "ControllerRevision"

    metadata: Meta
    revision: int = 0
    data: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def hash(self) -> str:
        """The value of its pods' hash label."""
        return self.metadata.labels.get(HASH_LABEL, self.metadata.name)


class UpdateStrategy(KubeStruct):
    """RollingUpdate or OnDelete."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DaemonSetSpec(KubeStruct):
    """The spec; the template stays as it came, so that no field of it is ever lost."""

    selector: LabelSelector = msgspec.field(default_factory=LabelSelector)
    template: msgspec.Raw = msgspec.Raw(b"{}")
    update_strategy: UpdateStrategy = msgspec.field(default_factory=UpdateStrategy)
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    paused: bool = False
    progress_deadline_seconds: int | None = None
    run_once: bool = False
    node_drain: str = "Stay"  # or LeaveLast
    node_overrides: list[NodeOverride] = []
    node_readiness: NodeReadiness | None = None


class RolloutStatus(KubeStruct, omit_defaults=False):
    """How far the rollout of a revision is: what must outlive a restart of the controller. Our own kind only.

    It is written by merge patch, so what is empty again must be written too.
    """

    revision: str = ""  # the hash of the revision that all this is about
    step: int = 0  # how many of spec's steps are done
    step_ready_time: str | None = None  # since when the running step has its readiness budget
    progress: int = 0  # the most nodes that were seen updated and available
    last_progress_time: str | None = None
    failed_nodes: int = 0  # nodes on which a pod of the revision fails
    failed_revision: str = ""  # the hash of the revision whose failures have stopped its rollout
    failure: str = ""  # what was wrong then: `2 of 5 nodes: container web of NS/POD on NODE: ImagePullBackOff`


class DaemonSetStatus(KubeStruct, omit_defaults=False):
    """The status; upstream writes all counters, zero or not. What follows the conditions is of our own kind only."""

    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0
    observed_generation: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    collision_count: int | None = None
    conditions: list[Condition] = []
    current_revision: str = ""  # the hash of the last revision that was rolled out to its end
    update_revision: str = ""  # the hash of the revision that holds the current template
    rollout: RolloutStatus | None = None


class FieldManager(KubeStruct):
    """Who wrote a part of an object, and when: an entry of managedFields without its fields."""

    manager: str = ""
    subresource: str = ""
    time: str | None = None


class DaemonSetMeta(KubeStruct):
    """Metadata; annotations are copied to revisions."""

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
    managed_fields: list[FieldManager] = []


class DaemonSet(KubeStruct):
    """A DaemonSet of either kind."""

    metadata: DaemonSetMeta
    spec: DaemonSetSpec = msgspec.field(default_factory=DaemonSetSpec)
    status: DaemonSetStatus = msgspec.field(default_factory=DaemonSetStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def rolling(self) -> RollingUpdate:
        """The rolling-update numbers, empty where none are given."""
        return self.spec.update_strategy.rolling_update or RollingUpdate()


class TemplateMeta(KubeStruct):
    """Labels that pods get."""

    labels: dict[str, str] = {}


class TemplatePodSpec(KubeStruct):
    """The fields of a pod template that decide on nodes."""

    node_name: str = ""
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: list[Toleration] = []
    host_network: bool = False


class Template(KubeStruct):
    """A pod template, as far as eligibility goes."""

    metadata: TemplateMeta = msgspec.field(default_factory=TemplateMeta)
    spec: TemplatePodSpec = msgspec.field(default_factory=TemplatePodSpec)
