"""Desired and allocated resources of a pod: comparing and combining them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from nodewright.kube import quantity
from nodewright.kube.objects import Container, Pod, ResourceRequirements

RESTART_CONTAINER = "RestartContainer"


def same(one: ResourceRequirements | None, other: ResourceRequirements | None) -> bool:
    """Tell whether two requirements mean the same: ``1`` is ``1000m``, unset is not zero."""
    first, second = one or ResourceRequirements(), other or ResourceRequirements()
    return _same(first.requests, second.requests) and _same(first.limits, second.limits)


def _same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return one == other or (
        one.keys() == other.keys() and all(quantity.parse(one[name]) == quantity.parse(other[name]) for name in one)
    )


def allocated(desired: Pod, before: Pod) -> Pod:
    """Return ``desired`` with the resources that ``before`` has; the very object where nothing differs."""
    spec = desired.spec
    containers = _with_old(spec.containers, before.spec.containers)
    inits = _with_old(spec.init_containers, before.spec.init_containers)
    pod_level = spec.resources
    # Where either has none the whole field stays as it was: the API server allows no such change.
    if not same(pod_level, before.spec.resources):
        pod_level = before.spec.resources
    if containers is spec.containers and inits is spec.init_containers and pod_level is spec.resources:
        return desired
    kept = msgspec.structs.replace(spec, containers=containers, init_containers=inits, resources=pod_level)
    return msgspec.structs.replace(desired, spec=kept)


def _with_old(desired: list[Container], before: Iterable[Container]) -> list[Container]:
    old = {container.name: container.resources for container in before}
    made, changed = [], False
    for container in desired:
        given = old.get(container.name)
        if given is not None and not same(given, container.resources):
            container = msgspec.structs.replace(container, resources=given)
            changed = True
        made.append(container)
    return made if changed else desired


def as_running(pod: Pod, actual: Mapping[str, ResourceRequirements]) -> Pod:
    """Return the pod with what its containers have, by name: that was allocated, where no record tells it."""

    def of(containers: list[Container]) -> list[Container]:
        return [msgspec.structs.replace(one, resources=actual.get(one.name, one.resources)) for one in containers]

    spec = pod.spec
    kept = msgspec.structs.replace(spec, containers=of(spec.containers), init_containers=of(spec.init_containers))
    return msgspec.structs.replace(pod, spec=kept)


def needs_restart(container: Container, given: ResourceRequirements) -> bool:
    """Tell whether the container's resize policy wants a restart to come from ``given`` to what it has now."""
    policies = {policy.resource_name: policy.restart_policy for policy in container.resize_policy}
    wanted = container.resources
    for name in ("cpu", "memory"):
        if policies.get(name) != RESTART_CONTAINER:
            continue
        for old, new in ((given.requests, wanted.requests), (given.limits, wanted.limits)):
            if quantity.parse(old.get(name, "0")) != quantity.parse(new.get(name, "0")):
                return True
    return False


def larger(one: ResourceRequirements, other: ResourceRequirements) -> ResourceRequirements:
    """Return, resource by resource, the larger request and limit: what a container holds while it is resized."""
    return ResourceRequirements(
        requests=_larger(one.requests, other.requests), limits=_larger(one.limits, other.limits)
    )


def _larger(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    merged = dict(one)
    for name, text in other.items():
        if name not in merged or quantity.parse(text) > quantity.parse(merged[name]):
            merged[name] = text
    return merged


def held(pod: Pod, actual: Mapping[str, ResourceRequirements]) -> Pod:
    """Return the allocated pod with what its running containers still have, where that is more.

    ``actual`` is by container name. Room is free for others only when it has been given back (upstream's admission
    counts the larger of allocated and actual).
    """

    def of(containers: list[Container]) -> list[Container]:
        return [
            msgspec.structs.replace(one, resources=larger(one.resources, actual[one.name]))
            if one.name in actual and not same(one.resources, actual[one.name])
            else one
            for one in containers
        ]

    spec = pod.spec
    if all(
        same(one.resources, actual.get(one.name, one.resources)) for one in (*spec.containers, *spec.init_containers)
    ):
        return pod
    grown = msgspec.structs.replace(spec, containers=of(spec.containers), init_containers=of(spec.init_containers))
    return msgspec.structs.replace(pod, spec=grown)
