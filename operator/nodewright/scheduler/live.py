"""Reading what `explain` needs from a live cluster, and asking its API server what it would make of a Pod."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import NODES, PODS, SCHEDULERPROFILES

from .explain import Cluster
from .objects import Node, Pod
from .profile import Profile
from .profiles import SchedulerProfile
from .served import served_profiles
from .service import NOT_FINISHED
from .surroundings import load_surroundings

# What `generateName` allows beside the suffix.
_NAME_ROOM = 57


async def read_cluster(client: Client, names: Iterable[str] = ()) -> tuple[Cluster, dict[str, Profile]]:
    """All that a scheduler follows, and the profiles by schedulerName: `names` are served in any case.

    Raises ApiError.
    """
    nodes, pods, objects = await asyncio.gather(
        client.list(NODES, type=Node),
        client.list(PODS, type=Pod, field_selector=NOT_FINISHED),
        read_profiles(client),
    )
    profiles, notes = served_profiles(objects, names)
    cluster = Cluster(nodes.items, pods.items, profiles)
    cluster.notes += notes
    await load_surroundings(client, cluster.core)
    return cluster, profiles


async def read_profiles(client: Client) -> list[SchedulerProfile]:
    """All SchedulerProfiles; none where the kind is not defined. Raises ApiError."""
    try:
        return (await client.list(SCHEDULERPROFILES, type=SchedulerProfile)).items
    except NotFound:
        return []


async def dry_run(client: Client, manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    """What the API server would make of a Pod's manifest: with defaults, limits and admission, but not stored.

    Raises ApiError with the server's message for a manifest that it refuses.
    """
    meta = dict(manifest.get("metadata") or {})
    name = str(meta.pop("name", "") or meta.get("generateName") or "pod")
    namespace = str(meta.get("namespace") or namespace)
    # A generated name, since a Pod of the given name may exist.
    meta |= {"generateName": f"{name.rstrip('-')[:_NAME_ROOM]}-", "namespace": namespace}
    body = msgspec.json.encode({**manifest, "metadata": meta})
    answer = await client.request("POST", PODS.path(namespace), params={"dryRun": "All"}, body=body)
    made: dict[str, Any] = msgspec.json.decode(answer)
    made["metadata"]["name"] = name
    made["metadata"]["uid"] = ""
    return made


async def hypothetical(client: Client, manifest: dict[str, Any], namespace: str) -> Pod:
    """The Pod that the API server would make of a manifest. Raises ApiError."""
    return msgspec.convert(await dry_run(client, manifest, namespace), Pod)
