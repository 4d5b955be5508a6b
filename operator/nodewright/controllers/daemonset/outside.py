"""A DaemonSet as somebody outside of the controller sees it. Pure data, and the View made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from nodewright.controllers.daemonset import drain, prepull, readiness
from nodewright.controllers.daemonset import revisions as histories
from nodewright.controllers.daemonset.details import Trouble
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import (
    GENERATION_ANNOTATION,
    HASH_LABEL,
    DaemonSet,
    Node,
    Pod,
    Revision,
)
from nodewright.controllers.daemonset.owntaints import OwnTaints
from nodewright.controllers.daemonset.placement import Placement
from nodewright.controllers.daemonset.pods import PodsByNode, group
from nodewright.controllers.daemonset.rivals import last_write
from nodewright.controllers.daemonset.view import View


class Refusal(msgspec.Struct, frozen=True):
    """An event that tells of a write that the API server refused, the last time that it did."""

    time: str
    message: str


class Recorded(msgspec.Struct, frozen=True):
    """A revision, and the cause that its DaemonSet gave for it in an annotation."""

    revision: Revision
    change_cause: str


class Read(msgspec.Struct, frozen=True):
    """What a View is made from. `pods` and `revisions` are the DaemonSet's own, with those that it would adopt.

    `pullers` are the pods that pull images for it, `others` all DaemonSets of its kind (as they wait for each other),
    `draining` all pods on nodes that are being drained, where its own pods leave last.
    """

    nodes: Sequence[Node]
    pods: Sequence[Pod]
    revisions: Sequence[Revision]
    pullers: Sequence[Pod] = ()
    others: Sequence[DaemonSet] = ()
    draining: Mapping[str, Sequence[Pod]] = {}


class Found(msgspec.Struct, frozen=True):
    """What was read. `view` is what the controller would decide on if it saw the same.

    `is_known`: whether a ControllerRevision holds the current template; until the controller has made one, `view` has a
    stand-in. `adopt` and `release` are pods that it would take or give up first. `troubles` are by pod key. `unread`
    says what may not be read, and so was left out.
    """

    kind: Kind
    view: View
    is_known: bool
    adopt: list[str] = []
    release: list[str] = []
    troubles: Mapping[str, Trouble] = {}
    refusal: Refusal | None = None
    unread: list[str] = []


def picture(kind: Kind, ds: DaemonSet, read: Read, now: datetime) -> tuple[View, bool]:
    """The View, and whether a revision holds the current template.

    Doubles of a revision count as one, as after the merge that the controller does first. Their pods count as its own.
    """
    history = histories.split(ds, read.revisions)
    own_pods = read.pods
    if history.current:
        update, *doubles = history.current
        own_pods = _relabelled(own_pods, {double.hash for double in doubles}, update.hash)
    else:
        body = msgspec.json.encode(histories.new_revision(kind.resource, ds, history.next_number))
        update = msgspec.json.decode(body, type=Revision)
    pods = group(own_pods)
    pulls = prepull.survey(read.pullers, update.hash, pods, now)
    own = readiness.order(read.others).own.get(ds.key, OwnTaints(drain=True)) if kind.extensions else OwnTaints()
    view = View(
        ds=ds,
        update=update,
        revisions={revision.hash: revision for revision in (*history.old, update)},
        nodes={node.metadata.name: node for node in read.nodes},
        verdicts=_drained(ds, Placement().verdicts(ds, read.nodes, own), pods, read),
        own_taints=own,
        pods=pods,
        now=now,
        template_generation=ds.metadata.annotations.get(GENERATION_ANNOTATION) if kind.template_generation else None,
        pulled=pulls.pulled,
        pull_errors=pulls.errors,
    )
    return view, bool(history.current)


def _relabelled(pods: Sequence[Pod], doubles: set[str], hash_value: str) -> list[Pod]:
    found = []
    for pod in pods:
        if pod.metadata.labels.get(HASH_LABEL) in doubles:
            labels = {**pod.metadata.labels, HASH_LABEL: hash_value}
            pod = msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, labels=labels))
        found.append(pod)
    return found


def _drained(ds: DaemonSet, verdicts: dict[str, Verdict], pods: PodsByNode, read: Read) -> dict[str, Verdict]:
    """The verdicts with the drains in them, for a DaemonSet whose pods leave last."""
    leaving = {other.metadata.uid for other in read.others if drain.leaves_last(other)}
    for node, there in read.draining.items():
        verdicts[node] = drain.verdict(verdicts[node], drain.waits_for(pods.get(node, []), there, leaving))
    return verdicts


def is_upstreams(kind: Kind, ds: DaemonSet) -> bool:
    """Whether kube-controller-manager was the last to write the status; it knows no pause."""
    written = last_write(ds)
    others = (e.time or "" for e in ds.metadata.managed_fields if e.subresource == "status")
    return not kind.extensions and written != "" and written == max(others, default="")
