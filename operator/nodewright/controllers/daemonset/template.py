"""The pod that a DaemonSet makes for a node. Pure; works on JSON objects, so that no field of the template is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nodewright.controllers.daemonset.eligibility import default_tolerations
from nodewright.controllers.daemonset.model import (
    GENERATION_LABEL,
    HASH_LABEL,
    IN_PLACE_ANNOTATION,
    NODE_CLASS_ANNOTATION,
    DaemonSet,
)
from nodewright.controllers.daemonset.revisions import owner_reference, template_of
from nodewright.controllers.daemonset.sizes import overridden, override_for
from nodewright.controllers.daemonset.view import Targets, View
from nodewright.kube.resources import Resource

Json = dict[str, Any]


class PodFactory:
    """Makes the pods of a decision: each node's from the revision, and in the form, that its targets name."""

    def __init__(self, resource: Resource, view: View, targets: Targets) -> None:
        """`resource` is the kind of DaemonSet that becomes the pods' owner."""
        self._resource = resource
        self._view = view
        self._targets = targets
        self._makers: dict[tuple[str, str], PodMaker] = {}

    def pod_for(self, node: str) -> Json:
        """The pod for a node, as JSON."""
        pod = self._maker(self._targets.hash_for(node), self._targets.classes.get(node, "")).pod_for(node)
        return tolerating(pod, self._view.own_taints.tolerated(self._view.nodes[node].spec.taints))

    def template(self, hash_value: str) -> Json:
        """The template of a revision, as it is for nodes without a class."""
        ds, is_update = self._view.ds, hash_value == self._view.update.hash
        template = None if is_update else template_of(self._view.revisions[hash_value])
        found: Json = msgspec.json.decode(ds.spec.template) if template is None else template
        return _without_marks(found)

    def _maker(self, hash_value: str, node_class: str) -> PodMaker:
        maker = self._makers.get((hash_value, node_class))
        if maker is None:
            ds, template = self._view.ds, self.template(hash_value)
            if node_class and (override := override_for(ds, node_class)) is not None:
                template = overridden(template, override)
            generation = self._targets.generation if hash_value == self._view.update.hash else None
            maker = PodMaker(self._resource, ds, template, hash_value, generation)
            self._makers[(hash_value, node_class)] = maker
        return maker


class PodMaker:
    """Makes pods of one template; the parts that all nodes share are prepared once."""

    def __init__(
        self, resource: Resource, ds: DaemonSet, template: Json, hash_value: str, template_generation: str | None = None
    ) -> None:
        """`hash_value` becomes the controller-revision-hash label."""
        meta: Json = template.get("metadata") or {}
        labels = {**(meta.get("labels") or {}), HASH_LABEL: hash_value}
        if template_generation is not None:
            labels[GENERATION_LABEL] = template_generation
        self._meta: Json = {
            "generateName": f"{ds.metadata.name}-",
            "namespace": ds.metadata.namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(resource, ds.metadata.name, ds.metadata.uid)],
        }
        for field in ("annotations", "finalizers"):
            if meta.get(field):
                self._meta[field] = meta[field]
        self._spec: Json = dict(template.get("spec") or {})
        self._spec["tolerations"] = tolerations(self._spec)
        self._affinity: Json = dict(self._spec.get("affinity") or {})

    def pod_for(self, node: str) -> Json:
        """The pod for a node: required node affinity is replaced by the node's name, preferred terms stay."""
        node_affinity = {**(self._affinity.get("nodeAffinity") or {}), **pinned(node)}
        spec = {**self._spec, "affinity": {**self._affinity, "nodeAffinity": node_affinity}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": self._meta, "spec": spec}


def tolerating(pod: Json, keys: Sequence[str]) -> Json:
    """The pod with tolerations for taints of our own. They are no part of the revision: other nodes need others."""
    if not keys:
        return pod
    given = [t.get("key") for t in pod["spec"]["tolerations"]]
    more = [{"key": key, "operator": "Exists"} for key in keys if key not in given]
    return {**pod, "spec": {**pod["spec"], "tolerations": [*pod["spec"]["tolerations"], *more]}}


def pinned(node: str) -> Json:
    """The required part of a node affinity that only this node meets."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}


def _without_marks(template: Json) -> Json:
    """Without our own marks: a template copied from a pod has them, and pods made from it would never be current."""
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    kept = {k: v for k, v in annotations.items() if k not in (NODE_CLASS_ANNOTATION, IN_PLACE_ANNOTATION)}
    if len(kept) == len(annotations):
        return template
    return {**template, "metadata": {**template["metadata"], "annotations": kept}}


def tolerations(spec: Json) -> list[Json]:
    """The template's tolerations and the default ones; one of the same key and effect is replaced (upstream's rule)."""
    merged: list[Json] = list(spec.get("tolerations") or [])
    for default in default_tolerations(bool(spec.get("hostNetwork"))):
        wire: Json = msgspec.to_builtins(default)
        for i, given in enumerate(merged):
            if (given.get("key", ""), given.get("effect", "")) == (default.key, default.effect) and (
                given.get("operator") or "Equal",
                given.get("value", ""),
            ) == (default.operator, default.value):
                merged[i] = wire
                break
        else:
            merged.append(wire)
    return merged
