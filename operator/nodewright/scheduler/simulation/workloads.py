"""Pods as controllers would make them: of Deployments, ReplicaSets, StatefulSets, Jobs, DaemonSets and plain Pods."""

from __future__ import annotations

from typing import Any

import msgspec

from .documents import Body, Document

# What stands for the random part of names, and for the hash that a Deployment gives its Pods.
MARK = "simulated"

_DAEMON_TOLERATIONS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_NETWORK_UNAVAILABLE = ("node.kubernetes.io/network-unavailable", "NoSchedule")


class Replica(msgspec.Struct):
    """What tells one Pod of a workload from the others. `claims`: volume name to claim name."""

    name: str
    labels: dict[str, str] = {}
    claims: dict[str, str] = {}


class Workload(msgspec.Struct):
    """Pods to be made of one object. `manifest` is a Pod's, without what tells replicas apart."""

    document: Document
    namespace: str
    name: str
    manifest: Body
    replicas: list[Replica] = []
    # One Pod for each node that fits, as a DaemonSet's.
    per_node: bool = False
    # The controller, where default spreading looks at its selector: apiVersion, kind, and the object.
    owner: tuple[str, str, Body] | None = None
    claim_templates: list[Body] = []

    @property
    def title(self) -> str:
        """`Deployment default/web`."""
        return f"{self.document.kind} {self.namespace}/{self.name}"

    def filled(self, defaulted: Body, replica: Replica) -> Body:
        """One replica's manifest, made of the workload's once defaults are filled in."""
        spec = defaulted["spec"]
        if replica.claims:
            spec = {**spec, "volumes": _with_claims(spec.get("volumes") or [], replica.claims)}
        meta = defaulted["metadata"]
        labels = {**(meta.get("labels") or {}), **replica.labels}
        return {**defaulted, "metadata": {**meta, "name": replica.name, "labels": labels}, "spec": spec}

    def first(self) -> Body:
        """The first replica's manifest: what the API server is asked about."""
        replica = self.replicas[0] if self.replicas else Replica(self.name)
        return self.filled(self.manifest, replica)


def is_workload(document: Document) -> bool:
    """Whether Pods are made of this object."""
    return _maker(document) is not None


def workload(document: Document, namespace: str) -> Workload:
    """The Pods of one object; `namespace` is for those that name none. Raises ManifestError, naming the field."""
    maker = _maker(document)
    assert maker is not None
    meta = document.meta
    name = str(meta.get("name") or meta.get("generateName") or "")
    if not name:
        raise document.error("metadata.name: Required value")
    result: Workload = maker(document, str(meta.get("namespace") or namespace), name.rstrip("-"))
    return result


def _maker(document: Document) -> Any:
    return _MAKERS.get((document.group, document.kind))


def _pod(document: Document, namespace: str, name: str) -> Workload:
    document.mapping(document.body, "spec", "", required=True)
    meta = {key: value for key, value in document.meta.items() if key in ("labels", "annotations", "ownerReferences")}
    body: Body = {"apiVersion": "v1", "kind": "Pod", "spec": document.body["spec"]}
    manifest = {**body, "metadata": {**meta, "namespace": namespace, "labels": dict(meta.get("labels") or {})}}
    return Workload(document, namespace, name, manifest, [Replica(name)])


def _deployment(document: Document, namespace: str, name: str) -> Workload:
    """Its Pods are a ReplicaSet's, and that one's selector is what default spreading goes by."""
    spec = _spec(document)
    hashed = {"pod-template-hash": MARK}
    replica_set = f"{name}-{MARK}"
    made = _of_template(document, namespace, name, spec, "spec.", "apps/v1", "ReplicaSet", replica_set, hashed)
    selector = document.mapping(spec, "selector", "spec.")
    labels = {**document.mapping(selector, "matchLabels", "spec.selector."), **hashed}
    made.owner = ("apps/v1", "ReplicaSet", _owner_object(namespace, replica_set, {**selector, "matchLabels": labels}))
    made.replicas = [Replica(f"{replica_set}-{n}") for n in range(document.number(spec, "replicas", 1, "spec"))]
    return made


def _replica_set(document: Document, namespace: str, name: str) -> Workload:
    spec, kind = _spec(document), document.kind
    version = str(document.body["apiVersion"])
    made = _of_template(document, namespace, name, spec, "spec.", version, kind, name)
    made.owner = (version, kind, _owner_object(namespace, name, spec.get("selector") or {}))
    made.replicas = [Replica(f"{name}-{MARK}-{n}") for n in range(document.number(spec, "replicas", 1, "spec"))]
    return made


def _stateful_set(document: Document, namespace: str, name: str) -> Workload:
    spec = _spec(document)
    made = _of_template(document, namespace, name, spec, "spec.", "apps/v1", "StatefulSet", name)
    made.owner = ("apps/v1", "StatefulSet", _owner_object(namespace, name, spec.get("selector") or {}))
    start = document.number(document.mapping(spec, "ordinals", "spec."), "start", 0, "spec.ordinals")
    made.claim_templates = [t for t in spec.get("volumeClaimTemplates") or [] if isinstance(t, dict)]
    volumes = [str((t.get("metadata") or {}).get("name") or "") for t in made.claim_templates]
    for number in range(start, start + document.number(spec, "replicas", 1, "spec")):
        own = f"{name}-{number}"
        labels = {"statefulset.kubernetes.io/pod-name": own, "apps.kubernetes.io/pod-index": str(number)}
        made.replicas.append(Replica(own, labels, {volume: f"{volume}-{own}" for volume in volumes}))
    return made


def _job(document: Document, namespace: str, name: str) -> Workload:
    return _of_job(document, namespace, name, _spec(document), "spec.")


def _cron_job(document: Document, namespace: str, name: str) -> Workload:
    template = document.mapping(_spec(document), "jobTemplate", "spec.", required=True)
    spec = document.mapping(template, "spec", "spec.jobTemplate.", required=True)
    return _of_job(document, namespace, name, spec, "spec.jobTemplate.spec.")


def _of_job(document: Document, namespace: str, name: str, spec: Body, field: str) -> Workload:
    """As many Pods as run at once."""
    labels = {"batch.kubernetes.io/job-name": name, "job-name": name}
    made = _of_template(document, namespace, name, spec, field, "batch/v1", "Job", name, labels)
    at_once = document.number(spec, "parallelism", 1, field.rstrip("."))
    completions = document.number(spec, "completions", at_once, field.rstrip("."))
    number = 0 if spec.get("suspend") else min(at_once, completions)
    made.replicas = [Replica(f"{name}-{MARK}-{n}") for n in range(number)]
    return made


def _daemon_set(document: Document, namespace: str, name: str) -> Workload:
    version = str(document.body["apiVersion"])
    made = _of_template(document, namespace, name, _spec(document), "spec.", version, "DaemonSet", name)
    spec = made.manifest["spec"] = dict(made.manifest["spec"])
    pairs = (*_DAEMON_TOLERATIONS, *((_NETWORK_UNAVAILABLE,) if spec.get("hostNetwork") else ()))
    tolerations = list(spec.get("tolerations") or [])
    spec["tolerations"] = tolerations + [{"key": k, "operator": "Exists", "effect": e} for k, e in pairs]
    made.per_node = True
    return made


_MAKERS = {
    ("", "Pod"): _pod,
    ("", "ReplicationController"): _replica_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("nodewright.dev", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
}


def _spec(document: Document) -> Body:
    return document.mapping(document.body, "spec", "", required=True)


def _of_template(
    document: Document,
    namespace: str,
    name: str,
    spec: Body,
    field: str,
    version: str,
    kind: str,
    owner: str,
    labels: dict[str, str] | None = None,
) -> Workload:
    template = document.mapping(spec, "template", field, required=True)
    meta = document.mapping(template, "metadata", f"{field}template.")
    document.mapping(template, "spec", f"{field}template.", required=True)
    reference = {"apiVersion": version, "kind": kind, "name": owner, "uid": f"{MARK}-{owner}", "controller": True}
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "labels": {**(meta.get("labels") or {}), **(labels or {})},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [reference],
        },
        "spec": template["spec"],
    }
    return Workload(msgspec.structs.replace(document, field=f"{field}template."), namespace, name, manifest)


def _owner_object(namespace: str, name: str, selector: Body) -> Body:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"selector": selector}}


def _with_claims(volumes: list[Body], claims: dict[str, str]) -> list[Body]:
    """The volumes of a StatefulSet's Pod: claims of its own in place of those that the template may name alike."""
    own = [{"name": volume, "persistentVolumeClaim": {"claimName": claim}} for volume, claim in claims.items()]
    return [*(volume for volume in volumes if volume.get("name") not in claims), *own]
