"""Reading what `explain` needs from a live cluster."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import NODES, PODS, SCHEDULERPROFILES

from .explain import Cluster
from .objects import Node, Pod
from .profile import Profile, ProfileConfig
from .profiles import ProfileSet, SchedulerProfile
from .registry import Registry
from .service import NOT_FINISHED

# What `generateName` allows beside the suffix.
_NAME_ROOM = 57


async def read_cluster(client: Client) -> Cluster:
    """All nodes, and all Pods that have not ended."""
    nodes = await client.list(NODES, type=Node)
    pods = await client.list(PODS, type=Pod, field_selector=NOT_FINISHED)
    return Cluster(nodes.items, pods.items)


async def read_profile(client: Client, scheduler_name: str) -> tuple[Profile, bool]:
    """The profile for a schedulerName, and whether a SchedulerProfile defines it; else the default plugins."""
    registry = Registry()
    base = {scheduler_name: Profile(ProfileConfig(scheduler_name=scheduler_name), registry)}
    try:
        objects = (await client.list(SCHEDULERPROFILES, type=SchedulerProfile)).items
    except NotFound:
        objects = []
    served, _ = ProfileSet(base, registry).resolve(objects)
    profile = served[scheduler_name]
    return profile, profile is not base[scheduler_name]


async def hypothetical(client: Client, manifest: dict[str, Any], namespace: str) -> Pod:
    """The Pod that the API server would make of a manifest: with defaults, limits and admission, but not stored.

    Raises ApiError with the server's message for a manifest that it refuses.
    """
    meta = dict(manifest.get("metadata") or {})
    name = str(meta.pop("name", "") or meta.get("generateName") or "pod")
    namespace = str(meta.get("namespace") or namespace)
    # A generated name, since a Pod of the given name may exist.
    meta |= {"generateName": f"{name.rstrip('-')[:_NAME_ROOM]}-", "namespace": namespace}
    body = msgspec.json.encode({**manifest, "metadata": meta})
    answer = await client.request("POST", PODS.path(namespace), params={"dryRun": "All"}, body=body)
    pod = msgspec.json.decode(answer, type=Pod)
    pod.metadata.name = name
    pod.metadata.uid = ""
    return pod
