"""A DaemonSet and all that a decision about it depends on, read from the API server once, without caches or writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec

from nodewright.controllers.daemonset import drain
from nodewright.controllers.daemonset.caches import puller_owner
from nodewright.controllers.daemonset.claims import Claim, claim
from nodewright.controllers.daemonset.details import PodDetail, Trouble, trouble
from nodewright.controllers.daemonset.kinds import APPS, NODEWRIGHT, Kind
from nodewright.controllers.daemonset.model import DaemonSet, Node, Pod, Revision
from nodewright.controllers.daemonset.outside import Found, Read, Recorded, Refusal, picture
from nodewright.controllers.daemonset.prepull import is_for, is_puller
from nodewright.kube.client import Client
from nodewright.kube.errors import Forbidden, NotFound
from nodewright.kube.objects import Event, PartialObject
from nodewright.kube.resources import CONTROLLERREVISIONS, EVENTS, NODES, PODS

KINDS = (NODEWRIGHT, APPS)
CHANGE_CAUSE = "kubernetes.io/change-cause"


async def find(
    client: Client, namespace: str, name: str, kinds: Sequence[Kind] = KINDS
) -> list[tuple[Kind, DaemonSet]]:
    """The DaemonSets of that name, of each kind that has one.

    A kind that may not be read counts as absent if another one has it; if none has, that refusal is raised.
    """
    found: list[tuple[Kind, DaemonSet]] = []
    refused: Forbidden | None = None
    for kind in kinds:
        try:
            found.append((kind, await client.get(kind.resource, name, namespace, type=DaemonSet)))
        except NotFound:
            continue
        except Forbidden as error:
            refused = error
    if not found and refused is not None:
        raise refused
    return found


async def own_history(client: Client, ds: DaemonSet, others: Sequence[DaemonSet] = ()) -> list[Recorded]:
    """The DaemonSet's revisions, and the orphans that it would adopt, the oldest number first.

    Of the `others` of its namespace, an older one may have an orphan before it does.
    """
    listed = await client.list(CONTROLLERREVISIONS, ds.metadata.namespace, type=msgspec.Raw)
    found = {}
    for text in listed.items:
        revision = msgspec.json.decode(text, type=Revision)
        found[revision.metadata.uid] = (revision, text)
    claimed = claim(ds, [revision for revision, _ in found.values()], others)
    recorded = []
    for revision in sorted([*claimed.mine, *claimed.adopt], key=lambda r: (r.revision, r.metadata.name)):
        annotations = msgspec.json.decode(found[revision.metadata.uid][1], type=PartialObject).metadata.annotations
        recorded.append(Recorded(revision, annotations.get(CHANGE_CAUSE, "")))
    return recorded


class OwnPods(msgspec.Struct, frozen=True):
    """The pods that concern a DaemonSet, those that pull images for it, and what is wrong with the former by key."""

    claimed: Claim[Pod]
    pullers: list[Pod]
    troubles: dict[str, Trouble]


async def own_pods(client: Client, ds: DaemonSet, others: Sequence[DaemonSet] = ()) -> OwnPods:
    """Read the pods of its namespace, and pick those that concern it."""
    listed = await client.list(PODS, ds.metadata.namespace, type=msgspec.Raw)
    candidates, pullers, texts = [], [], {}
    for text in listed.items:
        pod = msgspec.json.decode(text, type=Pod)
        if not is_puller(pod):
            candidates.append(pod)
            texts[pod.key] = text
        elif ref.uid == ds.metadata.uid if (ref := puller_owner(pod.metadata)) else is_for(pod, ds):
            pullers.append(pod)  # as PrePuller.of
    claimed = claim(ds, candidates, others)
    troubles: dict[str, Trouble] = {}
    for pod in (*claimed.mine, *claimed.adopt):
        found = trouble(msgspec.json.decode(texts[pod.key], type=PodDetail))
        if found is not None:
            troubles[pod.key] = found
    return OwnPods(claimed, pullers, troubles)


async def read(client: Client, kind: Kind, ds: DaemonSet, now: datetime) -> Found:
    """Read what a View of the DaemonSet needs, with one LIST each. `now` is the moment that the View is of."""
    unread: list[str] = []
    others = await _others(client, kind, ds, unread)
    rivals = [o for o in others if o.metadata.namespace == ds.metadata.namespace and o.metadata.uid != ds.metadata.uid]
    pods, nodes, history, refusal = await asyncio.gather(
        own_pods(client, ds, rivals),
        client.list(NODES, type=Node),
        own_history(client, ds, rivals),
        _refusal(client, ds),
    )
    claimed = pods.claimed
    seen = Read(
        nodes=nodes.items,
        pods=[*claimed.mine, *claimed.adopt],
        revisions=[each.revision for each in history],
        pullers=pods.pullers,
        others=others,
        draining=await _draining(client, ds, nodes.items, unread),
    )
    view, is_known = picture(kind, ds, seen, now)
    return Found(
        kind=kind,
        view=view,
        is_known=is_known,
        adopt=sorted(pod.metadata.name for pod in claimed.adopt),
        release=sorted(pod.metadata.name for pod in claimed.release),
        troubles=pods.troubles,
        refusal=refusal,
        unread=unread,
    )


async def _others(client: Client, kind: Kind, ds: DaemonSet, unread: list[str]) -> list[DaemonSet]:
    """All DaemonSets of our own kind; those of apps/v1 know nothing of each other."""
    if not kind.extensions:
        return [ds]
    try:
        return (await client.list(kind.resource, type=DaemonSet)).items
    except Forbidden:
        unread.append("DaemonSets of other namespaces, that this one may have to wait for")
        return [ds]


async def _draining(
    client: Client, ds: DaemonSet, nodes: Sequence[Node], unread: list[str]
) -> dict[str, Sequence[Pod]]:
    """All pods on nodes that are being drained, where that makes a difference."""
    if not drain.leaves_last(ds):
        return {}
    names = [node.metadata.name for node in nodes if drain.is_draining(node)]
    try:
        listed = [await client.list(PODS, type=Pod, field_selector=f"spec.nodeName={name}") for name in names]
    except Forbidden:
        unread.append("pods of other namespaces on nodes that are being drained")
        return dict.fromkeys(names, ())
    return {name: each.items for name, each in zip(names, listed, strict=True)}


async def _refusal(client: Client, ds: DaemonSet) -> Refusal | None:
    """The last FailedCreate event; None too for those who may not read events."""
    selector = f"involvedObject.uid={ds.metadata.uid},reason=FailedCreate"
    try:
        events = await client.list(EVENTS, ds.metadata.namespace, type=Event, field_selector=selector)
    except Forbidden:
        return None
    found = [(_time(event), event.message) for event in events.items]
    return Refusal(*max(found)) if found else None


def _time(event: Event) -> str:
    series = event.series.last_observed_time if event.series is not None else None
    return series or event.last_timestamp or event.event_time or event.first_timestamp or ""
