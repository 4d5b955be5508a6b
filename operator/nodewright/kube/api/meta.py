"""Object metadata, references and the label selector. Times are RFC 3339 strings, as on the wire."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from nodewright.kube.api.base import KubeStruct, TopLevel


class OwnerReference(KubeStruct):
    """An owner of an object; at most one of an object's owners has `controller` set."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(KubeStruct):
    """The part of metadata that Nodewright uses; managedFields are dropped on ingest."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []
    finalizers: list[str] = []
    generate_name: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`, or the name alone for cluster-scoped objects."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Object(TopLevel):
    """Base of objects with metadata."""

    metadata: ObjectMeta

    @property
    def key(self) -> str:
        """`namespace/name`, or the name alone for cluster-scoped objects."""
        meta = self.metadata
        return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


class PartialObject(Object):
    """Any object, of which only the metadata is of interest."""


class ObjectReference(KubeStruct):
    """A reference to an object, as in events and endpoints."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class LocalObjectReference(KubeStruct):
    """A reference by name within the namespace of the object that holds it."""

    name: str = ""


class LabelSelectorRequirement(KubeStruct):
    """`key In|NotIn|Exists|DoesNotExist values`."""

    key: str
    operator: str
    values: list[str] = []


class LabelSelector(KubeStruct):
    """A label selector; an empty one matches everything, an absent one (None) matches nothing."""

    match_labels: dict[str, str] = {}
    match_expressions: list[LabelSelectorRequirement] = []

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether an object with these labels is selected; an unknown operator selects nothing."""
        for key, value in self.match_labels.items():
            if labels.get(key) != value:
                return False
        return all(requirement_matches(r, labels) for r in self.match_expressions)


def requirement_matches(requirement: LabelSelectorRequirement, labels: dict[str, str]) -> bool:
    """Evaluate one requirement. `NotIn` and `DoesNotExist` also match where the key is missing (upstream's rule)."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


class Condition(KubeStruct):
    """A status condition (metav1.Condition), also used for Pod and Node conditions' common fields."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int = 0


class ListMeta(KubeStruct):
    """Metadata of a list: its resourceVersion, and the token of the next page."""

    resource_version: str = ""
    continue_: str = ""
    remaining_item_count: int | None = None
