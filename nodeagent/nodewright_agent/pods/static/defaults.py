"""What the API server fills into a Pod that leaves it out (upstream: pkg/apis/core/v1/defaults.go). Pure.

A static Pod never passes an API server before it runs. Works on plain dicts, as they come from a file, so that fields
that this agent does not know still reach the mirror Pod.
"""

from __future__ import annotations

import copy
from typing import Any

from nodewright.kube import quantity
from nodewright.kube.objects import Container, Pod

Tree = dict[str, Any]

_FILE_MODE = 0o644
_TOKEN_SECONDS = 3600
_COMPUTE = ("cpu", "memory")


def defaulted(manifest: Tree) -> Tree:
    """Return a copy of a Pod with the defaults filled in. The structure must be a Pod's (see ``manifest``)."""
    pod = copy.deepcopy(manifest)
    spec: Tree = pod.setdefault("spec", {})
    _fill(
        spec,
        restartPolicy="Always",
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        terminationGracePeriodSeconds=30,
        enableServiceLinks=True,
    )
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    _aliases(spec)
    host_network = bool(spec.get("hostNetwork"))
    for container in [*_items(spec, "initContainers"), *_items(spec, "containers")]:
        _container(container, host_network=host_network)
    _pod_resources(spec)
    for volume in _items(spec, "volumes"):
        _volume(volume)
    return pod


def qos_class(pod: Pod) -> str:
    """Return the QoS class, which the API server computes at creation (upstream: qos.ComputePodQOS)."""
    own = pod.spec.resources
    if own is not None and (own.requests or own.limits):
        holders = [(own.requests, own.limits)]
    else:
        all_of_them: list[Container] = [*pod.spec.init_containers, *pod.spec.containers]
        holders = [(one.resources.requests, one.resources.limits) for one in all_of_them]
    requests, limits = [_positive(first) for first, _ in holders], [_positive(second) for _, second in holders]
    if not any(requests) and not any(limits):
        return "BestEffort"
    if all(len(one) == len(_COMPUTE) for one in limits) and _sum(requests) == _sum(limits):
        return "Guaranteed"
    return "Burstable"


def _positive(amounts: dict[str, str]) -> dict[str, int]:
    parsed = {name: quantity.milli(amounts[name]) for name in _COMPUTE if name in amounts}
    return {name: value for name, value in parsed.items() if value > 0}


def _sum(amounts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in amounts:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return total


def _items(tree: Tree, name: str) -> list[Tree]:
    return tree.get(name) or []


def _fill(tree: Tree, **values: Any) -> None:
    """Set what is missing, null, or empty text: to Go, an empty string is no value."""
    for name, value in values.items():
        if tree.get(name) in (None, ""):
            tree[name] = value


def _aliases(spec: Tree) -> None:
    """The old name of serviceAccountName; each is read where the other is missing."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def _container(container: Tree, *, host_network: bool) -> None:
    _fill(
        container,
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if _tag(container.get("image") or "") == "latest" else "IfNotPresent",
    )
    for port in _items(container, "ports"):
        _fill(port, protocol="TCP")
        if host_network and not port.get("hostPort"):
            port["hostPort"] = port.get("containerPort")
    resources = container.get("resources") or {}
    if limits := resources.get("limits"):
        container["resources"] = {**resources, "requests": {**limits, **(resources.get("requests") or {})}}
    for variable in _items(container, "env"):
        source = variable.get("valueFrom") or {}
        if (field := source.get("fieldRef")) is not None:
            _fill(field, apiVersion="v1")
        if (key := source.get("fileKeyRef")) is not None:
            _fill(key, optional=False)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(name)) is not None:
            _probe(probe)
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http(handler)


def _probe(probe: Tree) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    _http(probe)
    if (grpc := probe.get("grpc")) is not None and grpc.get("service") is None:
        grpc["service"] = ""


def _http(handler: Tree) -> None:
    if (request := handler.get("httpGet")) is not None:
        _fill(request, path="/", scheme="HTTP")


def _tag(image: str) -> str:
    """Return an image's tag: "latest" where neither tag nor digest is given, "" with a digest alone."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or ("" if digest else "latest")


def _pod_resources(spec: Tree) -> None:
    """Requests of the whole Pod (KEP-2837): from its containers where all have them, else from its limits."""
    resources = spec.get("resources") or {}
    limits = resources.get("limits")
    if not limits:
        return
    requests = dict(resources.get("requests") or {})
    for name, limit in limits.items():
        if name in requests:
            continue
        if name in _COMPUTE and (total := _of_containers(spec, name)) is not None:
            requests[name] = total
        else:
            requests[name] = limit
    spec["resources"] = {**resources, "requests": requests}


def _of_containers(spec: Tree, name: str) -> str | None:
    """Return what the containers ask for together; None where none asks."""
    running = peak = 0
    asked = False
    read = quantity.milli if name == "cpu" else quantity.value

    def request(container: Tree) -> int:
        nonlocal asked
        text = ((container.get("resources") or {}).get("requests") or {}).get(name)
        asked = asked or text is not None
        return read(str(text)) if text is not None else 0

    for container in _items(spec, "initContainers"):
        wanted = request(container)
        if container.get("restartPolicy") == "Always":
            running += wanted
            peak = max(peak, running)
        else:
            peak = max(peak, running + wanted)
    total = max(running + sum(request(container) for container in _items(spec, "containers")), peak)
    if not asked:
        return None
    return f"{total}m" if name == "cpu" else str(total)


def _volume(volume: Tree) -> None:
    sources = [name for name, value in volume.items() if name != "name" and value is not None]
    if not sources:
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if (source := volume.get(name)) is not None:
            _fill(source, defaultMode=_FILE_MODE)
    if (path := volume.get("hostPath")) is not None and path.get("type") is None:
        path["type"] = ""
    if (image := volume.get("image")) is not None:
        latest = _tag(image.get("reference") or "") == "latest"
        _fill(image, pullPolicy="Always" if latest else "IfNotPresent")
    if (iscsi := volume.get("iscsi")) is not None:
        _fill(iscsi, iscsiInterface="default")
    _downward(volume.get("downwardAPI"))
    for source in _items(volume.get("projected") or {}, "sources"):
        _downward(source.get("downwardAPI"))
        if (token := source.get("serviceAccountToken")) is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = _TOKEN_SECONDS


def _downward(source: Tree | None) -> None:
    for item in _items(source or {}, "items"):
        if (field := item.get("fieldRef")) is not None:
            _fill(field, apiVersion="v1")
