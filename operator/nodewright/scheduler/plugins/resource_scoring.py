"""What the resource plugins share: their arguments, and a Pod's request for one resource as scoring sees it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .. import requests
from ..pods import PodInfo

NATIVE = ("cpu", "memory", "ephemeral-storage")


class ResourceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A resource that takes part in a score, and its weight (1..100)."""

    name: str
    weight: int = 1


CPU_AND_MEMORY = [ResourceSpec("cpu"), ResourceSpec("memory")]


def check_resources(resources: list[ResourceSpec], field: str) -> None:
    """Raise ValueError, naming the field, unless there are resources, each once, with a weight of 1..100."""
    if not resources:
        raise ValueError(f"{field}: at least one resource is required")
    for index, spec in enumerate(resources):
        if not 1 <= spec.weight <= 100:
            raise ValueError(f"{field}[{index}].weight: must be from 1 to 100, not {spec.weight}")
        if spec.name in {earlier.name for earlier in resources[:index]}:
            raise ValueError(f"{field}[{index}].name: {spec.name} is listed twice")


def scoring_requests(pod: PodInfo, resources: list[ResourceSpec], defaults: Mapping[str, int] | None) -> dict[str, int]:
    """The Pod's request per resource, with `defaults` (billionths) for containers that state none.

    Extended resources that the Pod does not ask for are left out: they take no part in the score.
    """
    amounts = requests.pod_requests(pod.pod, defaults)
    wanted = {spec.name: requests.in_units(spec.name, amounts.get(spec.name, 0)) for spec in resources}
    return {name: amount for name, amount in wanted.items() if amount or name in NATIVE}
