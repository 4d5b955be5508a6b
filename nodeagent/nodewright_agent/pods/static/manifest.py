"""One file to one static Pod: decoding, what static Pods may not do, identity (upstream: config/common.go). Pure.

The UID is a hash of the node, the file's path and its content, as it was written: the same over restarts and upgrades
of the agent, another one for every change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from nodewright.kube import quantity
from nodewright.kube.objects import Pod
from nodewright_agent.pods.model import all_containers
from nodewright_agent.pods.static.defaults import Tree, defaulted, qos_class

MAX_BYTES = 10 << 20
HASH, SOURCE, MIRROR, SEEN = (f"kubernetes.io/config.{name}" for name in ("hash", "source", "mirror", "seen"))
"""Upstream's annotations: of static Pods the UID and ``file``, of mirror Pods the UID of what they stand for."""
PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
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
    problem = next(_problems(pod), "")
    if problem:
        raise ManifestError(f"invalid pod: {problem}")
    if resource := api_reference(spec):
        raise ManifestError(f"static pods may not reference {resource}")
    return StaticPod(pod, body, file, digest)


def _decode(data: bytes) -> Tree:
    if len(data) > MAX_BYTES:
        raise ManifestError(f"larger than {MAX_BYTES} bytes")
    try:
        documents = [msgspec.json.decode(data)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        documents = _yaml(data)
    documents = [document for document in documents if document is not None]
    if len(documents) > 1:
        raise ManifestError(f"{len(documents)} documents in one file; a file holds one Pod")
    raw = documents[0] if documents else None
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


def _yaml(data: bytes) -> list[Any]:
    import yaml

    try:
        return list(yaml.load_all(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ManifestError(f"couldn't parse as pod: {' '.join(str(error).split())}") from None


def _typed(body: Tree) -> Pod:
    try:
        pod = msgspec.convert(body, Pod, strict=True)
    except msgspec.ValidationError as error:
        raise ManifestError(f"couldn't parse as pod: {error}") from None
    try:
        pod.status.qos_class = qos_class(pod)
        for text in _quantities(pod):
            quantity.value(text)
    except ValueError as error:
        raise ManifestError(f"invalid pod: spec: {error}") from None
    pod.status.phase = "Pending"
    if pod.spec.priority is None:
        # Elsewhere admission looks it up; these two are the same in every cluster.
        pod.spec.priority = PRIORITIES.get(pod.spec.priority_class_name)
    return pod


def _quantities(pod: Pod) -> Iterator[str]:
    """Give all that has to be a quantity; an API server would have looked at it."""
    for one in (pod.spec.resources, *(container.resources for container in all_containers(pod))):
        if one is not None:
            yield from one.requests.values()
            yield from one.limits.values()
    yield from pod.spec.overhead.values()
    for volume in pod.spec.volumes:
        if volume.empty_dir is not None and volume.empty_dir.size_limit:
            yield volume.empty_dir.size_limit


def _problems(pod: Pod) -> Iterator[str]:
    """Give what makes a Pod impossible to run. The API server, where there is one, looks at all of the mirror Pod."""
    meta, spec = pod.metadata, pod.spec
    if not _NAME.fullmatch(meta.name) or len(meta.name) > 253:
        yield f'metadata.name: Invalid value: "{meta.name}": a lowercase RFC 1123 subdomain is needed'
    if not _LABEL.fullmatch(meta.namespace):
        yield f'metadata.namespace: Invalid value: "{meta.namespace}"'
    if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,127}", meta.uid):
        yield f'metadata.uid: Invalid value: "{meta.uid}"'
    if not spec.containers:
        yield "spec.containers: Required value"
    if spec.ephemeral_containers:
        yield "spec.ephemeralContainers: Forbidden: cannot be set on create"
    if spec.restart_policy not in ("Always", "OnFailure", "Never"):
        yield f'spec.restartPolicy: Unsupported value: "{spec.restart_policy}"'
    if spec.dns_policy not in ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"):
        yield f'spec.dnsPolicy: Unsupported value: "{spec.dns_policy}"'
    for field, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if value and not _LABEL.fullmatch(value):
            yield f'spec.{field}: Invalid value: "{value}"'
    volumes = [volume.name for volume in spec.volumes]
    for name in volumes:
        if not _LABEL.fullmatch(name) or volumes.count(name) > 1:
            yield f'spec.volumes: Invalid or duplicate value: "{name}"'
    names = [container.name for container in all_containers(pod)]
    for container in all_containers(pod):
        where = f"container {container.name}"
        if not _LABEL.fullmatch(container.name) or names.count(container.name) > 1:
            yield f'spec.containers: Invalid or duplicate value: "{container.name}"'
        if not container.image.strip():
            yield f"{where}: image: Required value"
        for mount in container.volume_mounts:
            if mount.name not in volumes:
                yield f'{where}: volumeMounts: Not found: "{mount.name}"'
        for port in container.ports:
            if not 0 < port.container_port < 65536 or not 0 <= port.host_port < 65536:
                yield f"{where}: ports: must be between 1 and 65535, inclusive"


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
