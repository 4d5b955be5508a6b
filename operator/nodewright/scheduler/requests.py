"""How much a Pod asks for: upstream's rules for requests, exactly.

The rules are those of `PodRequests` in k8s.io/component-helpers/resource (1.36): sum of the containers and sidecars,
at least what each init container needs while it runs (with the sidecars started before it), pod-level requests in
place of the sum where set, plus overhead. Sums are taken exactly and rounded up once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from nodewright.kube import quantity

from .objects import Container, ContainerStatus, Pod, Quantities

# Sums are kept in billionths: the smallest step the API server stores.
NANO = 1_000_000_000
Amounts = dict[str, int]

# What a container without a request counts as, for scoring only (upstream: pod_resources.go).
DEFAULT_MILLI_CPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024
SCORING_DEFAULTS: Mapping[str, int] = {"cpu": DEFAULT_MILLI_CPU * NANO // 1000, "memory": DEFAULT_MEMORY * NANO}


@lru_cache(maxsize=16384)
def nano(text: str) -> int:
    """The quantity in billionths, rounded up. Raises ValueError for text that is no quantity."""
    value = quantity.parse(text) * NANO
    return -(-value.numerator // value.denominator)


def in_units(resource: str, amount: int) -> int:
    """An amount in billionths as the integer the scheduler computes with: millicores for cpu, whole units else."""
    step = NANO // 1000 if resource == "cpu" else NANO
    return -(-amount // step)


def pod_requests(pod: Pod, defaults: Mapping[str, int] | None = None, *, pod_level: bool = True) -> Amounts:
    """The Pod's requests in billionths per resource.

    `defaults` (billionths) stand in for requests that a container does not state; stated zeros stay zero. Without
    `pod_level`, what the Pod requests as a whole is left aside.
    """
    held = _held_by_status(pod)
    total: Amounts = {}
    for container in pod.spec.containers:
        _add(total, _container_requests(container, held, defaults))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in pod.spec.init_containers:
        restartable = container.restart_policy == "Always"
        own = _container_requests(container, held if restartable else {}, defaults)
        if restartable:
            _add(total, own)
            _add(sidecars, own)
            need = sidecars
        else:
            need = dict(own)
            _add(need, sidecars)
        _maximum(peak, need)
    _maximum(total, peak)
    if pod_level and pod.spec.resources is not None:
        for name, text in pod.spec.resources.requests.items():
            if _is_pod_level(name):
                total[name] = nano(text)
    _add(total, {name: nano(text) for name, text in pod.spec.overhead.items()})
    return total


def missing_defaults(pod: Pod, requests: Amounts) -> Mapping[str, int]:
    """The defaults by which the node's "non-zero" total counts this Pod (upstream: getNonMissingContainerRequests).

    With pod-level requests, a default applies only to a resource that is named nowhere; a stated zero is named.
    """
    if pod.spec.resources is None or not any(_is_pod_level(name) for name in pod.spec.resources.requests):
        return SCORING_DEFAULTS
    return {name: amount for name, amount in SCORING_DEFAULTS.items() if name not in requests}


def _is_pod_level(name: str) -> bool:
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def _held_by_status(pod: Pod) -> dict[str, ContainerStatus]:
    statuses: Iterable[ContainerStatus] = (*pod.status.container_statuses, *pod.status.init_container_statuses)
    return {status.name: status for status in statuses if status.resources is not None}


def _container_requests(
    container: Container, held: Mapping[str, ContainerStatus], defaults: Mapping[str, int] | None
) -> Amounts:
    requests = _nanos(container.resources.requests)
    status = held.get(container.name)
    if status is not None and status.resources is not None:
        # During an in-place resize the node must have room for the largest of wanted, allocated and actual.
        _maximum(requests, _nanos(status.resources.requests))
        _maximum(requests, _nanos(status.allocated_resources))
    if defaults:
        for name, amount in defaults.items():
            requests.setdefault(name, amount)
    return requests


def _nanos(requests: Quantities) -> Amounts:
    return {name: nano(text) for name, text in requests.items()}


def _add(into: Amounts, amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        into[name] = into.get(name, 0) + amount


def _maximum(into: Amounts, amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        if amount > into.get(name, -1):
            into[name] = amount
