"""One file to one static Pod: decoding, what static Pods may not do, identity (upstream: config/common.go). Pure.

The UID is a hash of the node, the file's path and its content, as it was written: the same over restarts and upgrades
of the agent, another one for every change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from nodewright.kube.objects import Pod
from nodewright_agent import documents
from nodewright_agent.pods.static import checks
from nodewright_agent.pods.static.defaults import Tree, defaulted, qos_class

MAX_BYTES = 10 << 20
HASH, SOURCE, MIRROR, SEEN = (f"kubernetes.io/config.{name}" for name in ("hash", "source", "mirror", "seen"))
"""Upstream's annotations: of static Pods the UID and ``file``, of mirror Pods the UID of what they stand for."""
PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_QUANTITIES = ("limits", "requests", "overhead")
_TOLERATION = {"operator": "Exists", "effect": "NoExecute"}


class ManifestError(Exception):
    """A file that is no static Pod; the text says why."""


@dataclass(frozen=True, slots=True)
class StaticPod:
    """A Pod from a file."""

    pod: Pod
    """What the node runs."""
    body: Tree
    """The same with every field of the file: what the mirror Pod is made of."""
    file: str
    digest: str
    """Of the content; the UID may be given by the file, and then says nothing of it."""

    @property
    def name(self) -> str:
        """``namespace/name``."""
        return self.pod.key


def is_static(pod: Pod) -> bool:
    """Tell whether a Pod came from a file: objects of the API have a version, whatever their annotations say."""
    return not pod.metadata.resource_version and pod.metadata.annotations.get(SOURCE) == "file"


def is_mirror(pod: Pod) -> bool:
    """Tell whether a Pod of the API only stands for a static one."""
    return MIRROR in pod.metadata.annotations


def parse(data: bytes, file: str, node_name: str, seen: str) -> StaticPod:
    """Read a manifest, YAML or JSON; ``seen`` is the time for the annotation. Raises ``ManifestError``."""
    raw = _decode(data)
    name = _typed(raw).metadata.name  # from here on its structure is a Pod's
    if not name:
        raise ManifestError("invalid pod: name is needed for the pod")
    digest = hashlib.sha256(msgspec.json.encode([node_name, file, raw], order="sorted")).hexdigest()[:32]
    body = defaulted(raw)
    meta: Tree = body["metadata"]
    meta["uid"] = uid = str(meta.get("uid") or digest)
    meta["name"] = f"{name}-{node_name.lower()}"
    meta["namespace"] = meta.get("namespace") or "default"
    meta["annotations"] = {**(meta.get("annotations") or {}), HASH: uid, SOURCE: "file", SEEN: seen}
    meta.pop("resourceVersion", None)
    spec: Tree = body["spec"]
    spec["nodeName"] = node_name
    if _TOLERATION not in (spec.get("tolerations") or []):
        spec["tolerations"] = [*(spec.get("tolerations") or []), dict(_TOLERATION)]
    body.pop("status", None)
    pod = _typed(body)
    problem = next(checks.problems(pod), "")
    if problem:
        raise ManifestError(f"invalid pod: {problem}")
    if resource := api_reference(spec):
        raise ManifestError(f"static pods may not reference {resource}")
    return StaticPod(pod, body, file, digest)


def _decode(data: bytes) -> Tree:
    if len(data) > MAX_BYTES:
        raise ManifestError(f"larger than {MAX_BYTES} bytes")
    try:
        found = [document for document in documents.decode(data) if document is not None]
    except documents.DocumentError as error:
        raise ManifestError(f"couldn't parse as pod: {error}") from None
    if len(found) > 1:
        raise ManifestError(f"{len(found)} documents in one file; a file holds one Pod")
    raw = found[0] if found else None
    if not isinstance(raw, dict):
        raise ManifestError("couldn't parse as pod: no object")
    kind, version = raw.get("kind"), raw.get("apiVersion")
    if kind != "Pod" or version != "v1":
        raise ManifestError(f"couldn't parse as pod: kind is {kind!r} and apiVersion {version!r}, not 'Pod' and 'v1'")
    raw = _as_json(raw)
    return {**raw, "metadata": raw.get("metadata", {}), "spec": raw.get("spec", {})}


def _as_json(value: Any, name: str = "") -> Any:
    """Drop nulls, which say nothing in a Pod, and write quantities that are numbers as text."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ManifestError(f"couldn't parse as pod: {name or 'the document'} has a key that is no text")
        inside = name in _QUANTITIES
        kept = {key: item for key, item in value.items() if item is not None}
        return {key: str(item) if inside and _number(item) else _as_json(item, key) for key, item in kept.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, str | bool | int | float):
        return str(value) if name in ("divisor", "sizeLimit") and _number(value) else value
    if value is None:
        return None
    raise ManifestError(
        f"couldn't parse as pod: {name}: {type(value).__name__} is not possible in JSON; quote the text"
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _typed(body: Tree) -> Pod:
    try:
        pod = msgspec.convert(body, Pod, strict=True)
    except msgspec.ValidationError as error:
        raise ManifestError(f"couldn't parse as pod: {error}") from None
    try:
        pod.status.qos_class = qos_class(pod)
    except ValueError as error:
        raise ManifestError(f"invalid pod: spec: {error}") from None
    pod.status.phase = "Pending"
    if pod.spec.priority is None:
        # Elsewhere admission looks it up; these two are the same in every cluster.
        pod.spec.priority = PRIORITIES.get(pod.spec.priority_class_name)
    return pod


_REFUSED = {
    "csi": "csidrivers (via CSI volumes)",
    "glusterfs": "endpoints (via glusterFS volumes)",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims (via ephemeral volumes)",
    "azureFile": "secrets (via azureFile volumes)",
}
_PROJECTED = {
    "serviceAccountToken": "serviceaccounts (via projected volumes)",
    "clusterTrustBundle": "clustertrustbundles",
    "podCertificate": "podcertificates",
}


def api_reference(spec: Tree) -> str:
    """Return the resource of the API that a Pod refers to, in upstream's words; empty: it can do without an API."""
    if spec.get("serviceAccountName"):
        return "serviceaccounts"
    if spec.get("imagePullSecrets"):
        return "secrets"
    volumes = [volume for volume in spec.get("volumes") or [] if isinstance(volume, dict)]
    projected = [
        source for volume in volumes for source in (volume.get("projected") or {}).get("sources") or [] if source
    ]
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    origins = [entry.get("valueFrom") or {} for one in containers for entry in one.get("env") or []]
    many = [entry for one in containers for entry in one.get("envFrom") or []]
    for kind, resource in (("secret", "secrets"), ("configMap", "configmaps")):
        named = [*(one.get(f"{kind}KeyRef") for one in origins), *(one.get(f"{kind}Ref") for one in many)]
        named += [one.get(kind) for one in (*volumes, *projected)]
        if any(one is not None for one in named):
            return resource
    if spec.get("resourceClaims"):
        return "resourceclaims"
    for where, table in ((volumes, _REFUSED), (projected, _PROJECTED)):
        for one in where:
            for field, resource in table.items():
                if one.get(field) is not None:
                    return resource
    return ""
