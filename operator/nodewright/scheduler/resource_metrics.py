"""`/metrics/resources`: what every Pod requests, as kube-scheduler shows it.

Limits are not shown: they take no part in scheduling, so this scheduler does not keep them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from .objects import Pod
from .pods import PodInfo

NAME = "kube_pod_resource_request"
_HEAD = f"# HELP {NAME} Resources requested by workloads on the cluster, by pod.\n# TYPE {NAME} gauge\n"
# Pods written without letting anybody else run: well below a millisecond.
_SLICE = 50


async def resource_page(pods: Iterable[Pod], info: Callable[[Pod], PodInfo]) -> str:
    """The page for these Pods. Others get their turn while it is written, however many Pods there are."""
    parts = [_HEAD]
    for number, pod in enumerate(list(pods), 1):
        parts.append(_lines(pod, info))
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    return "".join(parts)


def _lines(pod: Pod, info: Callable[[Pod], PodInfo]) -> str:
    try:
        requests = info(pod).template.requests
    except ValueError:
        return ""  # amounts that cannot be read; the scheduler's log says so
    meta, spec = pod.metadata, pod.spec
    # Names of objects need no escapes.
    labels = (
        f'namespace="{meta.namespace}",pod="{meta.name}",node="{spec.node_name}",scheduler="{spec.scheduler_name}"'
        f',priority="{spec.priority}"'
    )
    return "".join(
        f'{NAME}{{{labels},resource="{name}",unit="{unit(name)}"}} {amount / 1000 if name == "cpu" else amount}\n'
        for name, amount in requests.items()
    )


def unit(resource: str) -> str:
    """In what the amounts of a resource are given."""
    if resource == "cpu":
        return "cores"
    is_bytes = resource in ("memory", "storage", "ephemeral-storage") or resource.startswith("hugepages-")
    return "bytes" if is_bytes else "integer"
