"""What the scheduler knows about a Pod: facts computed once per template, shared by all Pods made from it.

The Pods of one controller differ in name and UID only. Everything that follows from the spec (requests, host ports,
images) is computed once per distinct spec and shared, and the same key tells the evaluator that two Pods can share
masks and scores.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Hashable

import msgspec

from . import requests
from .objects import Container, ContainerStatus, Pod, PodSpec
from .terms import NO_TERMS, AffinityTerms, placed_term, weighted_terms


class PodPart(enum.Flag):
    """Parts of a Pod that a plugin's answer may depend on, besides the node it asks for by name."""

    SPEC = enum.auto()
    NAMESPACE = enum.auto()
    LABELS = enum.auto()
    ANNOTATIONS = enum.auto()
    # The controller that owns it.
    OWNER = enum.auto()
    # The Pod itself (name, UID, times, status): its answers are never shared with another Pod.
    IDENTITY = enum.auto()


ANY_ADDRESS = "0.0.0.0"


class HostPort(msgspec.Struct, frozen=True):
    """A port of the host that the Pod wants: address ("" and "0.0.0.0" mean all), protocol, number."""

    ip: str
    protocol: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        """Whether the two cannot be had on one node: the same port, at one address or with either at all of them."""
        if (self.protocol, self.port) != (other.protocol, other.port):
            return False
        ours, theirs = self.ip or ANY_ADDRESS, other.ip or ANY_ADDRESS
        return ours == theirs or ANY_ADDRESS in (ours, theirs)


class PodTemplate:
    """Facts that follow from a Pod's spec alone. Amounts are integers: millicores for cpu, whole units for the rest."""

    __slots__ = ("_terms", "host_ports", "images", "nonzero_cpu", "nonzero_memory", "number", "requests", "spec")

    def __init__(self, number: int, pod: Pod) -> None:
        self.number = number
        self.spec = pod.spec
        self._terms: dict[str, AffinityTerms] = {}
        exact = requests.pod_requests(pod)
        # Zero requests take part in no rule.
        self.requests: dict[str, int] = {n: requests.in_units(n, a) for n, a in exact.items() if a}
        counted = requests.pod_requests(pod, requests.missing_defaults(pod, exact))
        self.nonzero_cpu = requests.in_units("cpu", counted.get("cpu", 0))
        self.nonzero_memory = requests.in_units("memory", counted.get("memory", 0))
        self.host_ports = host_ports(pod.spec)
        self.images: tuple[str, ...] = (
            *(c.image for c in pod.spec.init_containers),
            *(c.image for c in pod.spec.containers),
            *(v.image.reference for v in pod.spec.volumes if v.image is not None),
        )

    def terms(self, namespace: str) -> AffinityTerms:
        """The Pod affinity and anti-affinity of a Pod of this template in a namespace."""
        affinity = self.spec.affinity
        if affinity is None or (affinity.pod_affinity is None and affinity.pod_anti_affinity is None):
            return NO_TERMS
        terms = self._terms.get(namespace)
        if terms is None:
            near, apart = affinity.pod_affinity, affinity.pod_anti_affinity
            terms = self._terms[namespace] = AffinityTerms(
                tuple(placed_term(t, namespace) for t in near.required) if near else (),
                tuple(placed_term(t, namespace) for t in apart.required) if apart else (),
                (
                    *(weighted_terms(near.preferred, namespace, 1) if near else ()),
                    *(weighted_terms(apart.preferred, namespace, -1) if apart else ()),
                ),
            )
        return terms


class PodInfo:
    """A Pod together with the facts of its template. Treat it as immutable: a changed Pod gets a new PodInfo.

    `class_key` is equal for Pods that no label selector can tell apart: namespace, labels, and whether it is ending.
    """

    __slots__ = ("class_key", "key", "node_name", "pod", "priority", "template", "terms", "uid")

    def __init__(self, pod: Pod, template: PodTemplate, labels: frozenset[tuple[str, str]] | None = None) -> None:
        meta = pod.metadata
        self.pod = pod
        self.template = template
        self.key = f"{meta.namespace}/{meta.name}"
        self.uid = meta.uid
        self.node_name = pod.spec.node_name
        self.priority = pod.spec.priority
        self.class_key = (
            meta.namespace,
            frozenset(meta.labels.items()) if labels is None else labels,
            meta.deletion_timestamp is not None,
        )
        self.terms = template.terms(meta.namespace)

    @property
    def spec(self) -> PodSpec:
        """The Pod's spec."""
        return self.pod.spec

    def signature(self, parts: PodPart) -> Hashable:
        """Equal for two Pods that no reader of `parts` can tell apart."""
        meta = self.pod.metadata
        key: list[Hashable] = [self.template.number, self.node_name]
        if PodPart.IDENTITY in parts:
            key.append((self.uid, meta.resource_version))
        if PodPart.NAMESPACE in parts:
            key.append(meta.namespace)
        if PodPart.LABELS in parts:
            key.append(self.class_key[1])
        if PodPart.ANNOTATIONS in parts:
            key.append(frozenset(meta.annotations.items()))
        if PodPart.OWNER in parts:
            owner = next((o for o in meta.owner_references if o.controller), None)
            key.append(None if owner is None else (owner.api_version, owner.kind, owner.name))
        return tuple(key)


class PodFactory:
    """Makes PodInfos and remembers the templates of the most recent `size` distinct specs."""

    def __init__(self, size: int = 8192) -> None:
        self._size = size
        self._templates: OrderedDict[bytes, PodTemplate] = OrderedDict()
        self._labels: OrderedDict[frozenset[tuple[str, str]], tuple[frozenset[tuple[str, str]], dict[str, str]]]
        self._labels = OrderedDict()
        self._encoder = msgspec.json.Encoder()
        self._count = 0

    def info(self, pod: Pod) -> PodInfo:
        """The PodInfo of a Pod. Raises ValueError where a quantity cannot be read."""
        # Random names, and volumes that no rule reads, would tell Pods apart that are alike.
        pod.spec.volumes = [volume for volume in pod.spec.volumes if volume.takes_part]
        for volume in pod.spec.volumes:
            if volume.ephemeral is None:
                volume.name = ""
        key = self._key(pod)
        template = self._templates.get(key)
        if template is None:
            self._count += 1
            template = self._templates[key] = PodTemplate(self._count, pod)
            if len(self._templates) > self._size:
                self._templates.popitem(last=False)
        else:
            self._share(pod, template)
        labels, pod.metadata.labels = self._shared_labels(pod.metadata.labels)
        return PodInfo(pod, template, labels)

    @staticmethod
    def _share(pod: Pod, template: PodTemplate) -> None:
        """Let a Pod use the template's copy of all that is equal: most of its memory."""
        spec, shared = pod.spec, template.spec
        if spec is not shared:
            for field in _SHARED_FIELDS:
                setattr(spec, field, getattr(shared, field))

    def _shared_labels(self, labels: dict[str, str]) -> tuple[frozenset[tuple[str, str]], dict[str, str]]:
        key = frozenset(labels.items())
        found = self._labels.get(key)
        if found is None:
            found = self._labels[key] = (key, labels)
            if len(self._labels) > self._size:
                self._labels.popitem(last=False)
        return found

    def _key(self, pod: Pod) -> bytes:
        spec = pod.spec
        node, spec.node_name = spec.node_name, ""  # where a Pod runs is not part of its template
        try:
            key = self._encoder.encode(spec)
        finally:
            spec.node_name = node
        held: list[ContainerStatus] = [
            s for s in (*pod.status.container_statuses, *pod.status.init_container_statuses) if s.resources is not None
        ]
        return key + self._encoder.encode(held) if held else key


# All of a spec but the node, which is not part of a template.
_SHARED_FIELDS = tuple(field for field in PodSpec.__struct_fields__ if field != "node_name")


def host_ports(spec: PodSpec) -> tuple[HostPort, ...]:
    """Host ports of containers and sidecars (upstream: GetHostPorts; other init containers do not keep theirs)."""
    lasting: list[Container] = [c for c in spec.init_containers if c.restart_policy == "Always"]
    return tuple(
        HostPort(p.host_ip, p.protocol or "TCP", p.host_port)
        for c in (*lasting, *spec.containers)
        for p in c.ports
        if p.host_port > 0
    )
