"""The pod that a DaemonSet makes for a node. Pure; works on JSON objects, so that no field of the template is lost."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.controllers.daemonset.eligibility import default_tolerations
from nodewright.controllers.daemonset.model import GENERATION_LABEL, HASH_LABEL, DaemonSet
from nodewright.controllers.daemonset.revisions import owner_reference, template_of
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
        self._makers: dict[str, PodMaker] = {}

    def pod_for(self, node: str) -> Json:
        """The pod for a node, as JSON."""
        return self._maker(self._targets.hash_for(node)).pod_for(node)

    def _maker(self, hash_value: str) -> PodMaker:
        maker = self._makers.get(hash_value)
        if maker is None:
            ds, is_update = self._view.ds, hash_value == self._view.update.hash
            template = None if is_update else template_of(self._view.revisions[hash_value])
            if template is None:
                template = msgspec.json.decode(ds.spec.template)
            generation = self._targets.generation if is_update else None
            maker = self._makers[hash_value] = PodMaker(self._resource, ds, template, hash_value, generation)
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
        self._spec["tolerations"] = _tolerations(self._spec)
        self._affinity: Json = dict(self._spec.get("affinity") or {})

    def pod_for(self, node: str) -> Json:
        """The pod for a node: required node affinity is replaced by the node's name, preferred terms stay."""
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        node_affinity = {
            **(self._affinity.get("nodeAffinity") or {}),
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        }
        spec = {**self._spec, "affinity": {**self._affinity, "nodeAffinity": node_affinity}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": self._meta, "spec": spec}


def _tolerations(spec: Json) -> list[Json]:
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
