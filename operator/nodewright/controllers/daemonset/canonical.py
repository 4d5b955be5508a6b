"""When two pod templates mean the same. Pure.

Upstream compares bytes, and so an upgrade that writes one more default (1.13 -> 1.14) or one null less (1.33 ->
1.34) restarts every pod. Here templates are brought to one form first: nulls, empty lists and values equal to the
API server's defaults are dropped. That also lets a template written by another controller, or through another API
version, be found again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nodewright.kube.quantity import QuantityError, parse

Json = dict[str, Any]

# Fields whose values are free maps: an empty string means something there.
_MAPS = frozenset({"labels", "annotations", "nodeSelector", "matchLabels", "limits", "requests", "driver", "options"})
# Booleans that Go holds as plain values: false is the same as absent.
_PLAIN_BOOLS = frozenset({"hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly"})
_POD: Json = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": 30,
    "securityContext": {},
}
_CONTAINER: Json = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "resources": {},
}
_PROBE: Json = {
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
    "initialDelaySeconds": 0,
}
_VOLUME_SOURCES: dict[str, Json] = {
    "secret": {"defaultMode": 420},
    "configMap": {"defaultMode": 420},
    "downwardAPI": {"defaultMode": 420},
    "projected": {"defaultMode": 420},
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "readOnly": False, "kind": "Shared"},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def canonical(template: Json) -> Json:
    """The template's normal form; two templates with equal normal forms make the same pods."""
    out: Json = _prune(template)
    meta = out.get("metadata")
    if isinstance(meta, dict):
        kept = {k: v for k, v in meta.items() if k in ("labels", "annotations", "finalizers") and v}
        out.pop("metadata")
        if kept:
            out["metadata"] = kept
    spec = out.get("spec")
    if isinstance(spec, dict):
        _pod(spec)
    return out


def canonical_bytes(template: Json) -> bytes:
    """The normal form as JSON with sorted keys."""
    return msgspec.json.encode(canonical(template), order="deterministic")


def _prune(value: Any, *, free: bool = False) -> Any:
    """Without nulls, empty lists and empty strings; `free` maps keep their values."""
    if isinstance(value, list):
        return [_prune(item) for item in value]
    if not isinstance(value, dict):
        return value
    out: Json = {}
    for name, item in value.items():
        if item is None or (not free and (item == "" or item == [])):
            continue
        if not free and item is False and name in _PLAIN_BOOLS:
            continue
        if name in _MAPS and isinstance(item, dict):
            if item:
                out[name] = _prune(item, free=True)
            continue
        out[name] = _prune(item)
    return out


def _drop(obj: Json, defaults: Json) -> None:
    for name, default in defaults.items():
        if name in obj and obj[name] == default:
            del obj[name]


def _each(obj: Json, name: str, visit: Callable[[Json], None]) -> None:
    items = obj.get(name)
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                visit(item)


def _pod(spec: Json) -> None:
    _drop(spec, _POD)
    if (old_name := spec.pop("serviceAccount", None)) is not None:
        spec.setdefault("serviceAccountName", old_name)
    for name in ("containers", "initContainers"):
        _each(spec, name, _container)
        if spec.get("hostNetwork"):
            _each(spec, name, lambda container: _each(container, "ports", _host_port))
    _resources(spec)
    _quantities(spec, "overhead")
    _each(spec, "volumes", _volume)


def _container(container: Json) -> None:
    _drop(container, _CONTAINER)
    if container.get("imagePullPolicy") == pull_policy(str(container.get("image", ""))):
        container.pop("imagePullPolicy", None)
    _each(container, "ports", lambda port: _drop(port, {"protocol": "TCP"}))
    _each(container, "env", _env)
    _resources(container)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if isinstance(probe, dict):
            _drop(probe, _PROBE)
            _handler(probe)
    lifecycle = container.get("lifecycle")
    if isinstance(lifecycle, dict):
        for name in ("postStart", "preStop"):
            if isinstance(hook := lifecycle.get(name), dict):
                _handler(hook)


def _handler(handler: Json) -> None:
    if isinstance(get := handler.get("httpGet"), dict):
        _drop(get, {"scheme": "HTTP", "path": "/"})


def _env(env: Json) -> None:
    source = env.get("valueFrom")
    if isinstance(source, dict):
        _field_ref(source)


def _field_ref(holder: Json) -> None:
    if isinstance(ref := holder.get("fieldRef"), dict):
        _drop(ref, {"apiVersion": "v1"})
    if isinstance(resource := holder.get("resourceFieldRef"), dict) and "divisor" in resource:
        resource["divisor"] = _quantity(resource["divisor"])
        _drop(resource, {"divisor": "0"})


def _host_port(port: Json) -> None:
    """On the host's network a container's port is the host's; earlier API servers wrote that into templates."""
    if port.get("hostPort") == port.get("containerPort"):
        port.pop("hostPort", None)


def _resources(holder: Json) -> None:
    if isinstance(resources := holder.get("resources"), dict):
        _quantities(resources, "limits")
        _quantities(resources, "requests")


def _quantities(holder: Json, name: str) -> None:
    if isinstance(amounts := holder.get(name), dict):
        holder[name] = {resource: _quantity(amount) for resource, amount in amounts.items()}


def _quantity(amount: Any) -> Any:
    """The same text for the same amount: `0.5` is `500m`; what is no quantity stays."""
    try:
        return str(parse(str(amount)))
    except QuantityError:
        return amount


def _claim_template(template: Json) -> None:
    meta, spec = template.get("metadata"), template.get("spec")
    if isinstance(meta, dict):
        meta.pop("creationTimestamp", None)
        _drop(template, {"metadata": {}})
    if isinstance(spec, dict):
        _drop(spec, {"volumeMode": "Filesystem"})
        _resources(spec)


def _volume(volume: Json) -> None:
    if volume.keys() == {"name", "emptyDir"}:
        _drop(volume, {"emptyDir": {}})  # what a volume without a source gets
    if isinstance(empty := volume.get("emptyDir"), dict) and "sizeLimit" in empty:
        empty["sizeLimit"] = _quantity(empty["sizeLimit"])
    if isinstance(image := volume.get("image"), dict):
        _drop(image, {"pullPolicy": pull_policy(str(image.get("reference", "")))})
    if isinstance(ephemeral := volume.get("ephemeral"), dict) and isinstance(
        claim := ephemeral.get("volumeClaimTemplate"), dict
    ):
        _claim_template(claim)
    for name, defaults in _VOLUME_SOURCES.items():
        source = volume.get(name)
        if not isinstance(source, dict):
            continue
        _drop(source, defaults)
        _each(source, "items", _field_ref)
        for projection in source.get("sources") or ():
            if isinstance(token := projection.get("serviceAccountToken"), dict):
                _drop(token, {"expirationSeconds": 3600})
            if isinstance(downward := projection.get("downwardAPI"), dict):
                _each(downward, "items", _field_ref)


def pull_policy(image: str) -> str:
    """The API server's default: Always for the tag `latest`, also before a digest, and where there is neither."""
    name, _, digest = image.partition("@")
    tag = name.rsplit("/", 1)[-1].partition(":")[2]
    return "Always" if tag == "latest" or not (tag or digest) else "IfNotPresent"
