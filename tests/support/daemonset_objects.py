"""Short constructors of the controller's structs, for tests."""

import msgspec

from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Node, Pod, Revision, RolloutStatus
from nodewright.controllers.daemonset.pods import group
from nodewright.controllers.daemonset.targets import targets_for
from nodewright.controllers.daemonset.view import View
from nodewright.kube.times import parse_rfc3339

NOW = "2026-03-01T12:00:00Z"
# The nodes that the lab's clusters begin with, and the zones they are in.
ZONES = {f"n{i}": "ab"[i % 2] for i in range(3)}
TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def rolling(**numbers):
    """The part of a spec that says how pods are replaced, in wire names."""
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": numbers}}


def node(name, labels=None, taints=()):
    """`taints` are key:effect or key=value:effect."""
    found = []
    for text in taints:
        left, _, effect = text.rpartition(":")
        key, _, value = left.partition("=")
        found.append({"key": key, "value": value, "effect": effect})
    return msgspec.convert({"metadata": {"name": name, "labels": labels or {}}, "spec": {"taints": found}}, Node)


def pod(
    name,
    node="n1",
    *,
    hash="new",
    phase="Running",
    ready=True,
    since=NOW,
    created="2026-03-01T11:00:00Z",
    deleting=False,
    scheduled=True,
    owner="uid",
    labels=None,
    uid=None,
    waiting=None,
    init=False,
):
    """`waiting` is why its only container (an init container with `init`) waits."""
    pinned = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
            }
        }
    }
    meta = {
        "name": name,
        "namespace": "ns",
        "uid": uid or f"uid-{name}",
        "creationTimestamp": created,
        "labels": {"app": "a", HASH_LABEL: hash} if labels is None else labels,
    }
    if deleting:
        meta["deletionTimestamp"] = NOW
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": "x/v1", "kind": "DaemonSet", "name": "ds", "uid": owner, "controller": True}
        ]
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}]
    statuses = [{"name": "c", "state": {"waiting": {"reason": waiting}}}] if waiting else []
    raw = {
        "metadata": meta,
        "spec": {"nodeName": node if scheduled else "", "affinity": pinned},
        "status": {"phase": phase, "conditions": conditions},
    }
    raw["status"]["initContainerStatuses" if init else "containerStatuses"] = statuses
    return msgspec.convert(raw, Pod)


def daemonset(
    template=None,
    *,
    uid="uid",
    selector=None,
    collision_count=None,
    deleting=False,
    status=None,
    annotations=None,
    **spec,
):
    raw = {
        "metadata": {"name": "ds", "namespace": "ns", "uid": uid, "generation": 1, "annotations": annotations or {}},
        "spec": {
            "selector": selector or {"matchLabels": {"app": "a"}},
            "template": TEMPLATE if template is None else template,
            **spec,
        },
        "status": {"collisionCount": collision_count, **(status or {})},
    }
    if deleting:
        raw["metadata"]["deletionTimestamp"] = NOW
    return msgspec.json.decode(msgspec.json.encode(raw), type=DaemonSet)


def revision(name, template=None, number=1, hash=None, owner="uid", data=None):
    meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "labels": {"app": "a", HASH_LABEL: hash or name}}
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": "x/v1", "kind": "DaemonSet", "name": "ds", "uid": owner, "controller": True}
        ]
    content = {"spec": {"template": {**(template or TEMPLATE), "$patch": "replace"}}} if data is None else data
    raw = {"metadata": meta, "revision": number, "data": content}
    return msgspec.json.decode(msgspec.json.encode(raw), type=Revision)


def override(value):
    """Of spec.nodeOverrides, in wire form: pods on nodes labelled size=big get the variable SIZE."""
    containers = [{"name": "c", "env": [{"name": "SIZE", "value": value}]}]
    return {"name": "big", "nodeSelector": {"matchLabels": {"size": "big"}}, "containers": containers}


RUN, STAY, LEAVE = Verdict(True, True), Verdict(False, True, "x"), Verdict(False, False, "x")


def view(
    pods=(),
    verdicts=None,
    *,
    ds=None,
    rolling=None,
    strategy="RollingUpdate",
    hash="new",
    revisions=("old",),
    nodes=None,
    now=NOW,
    generation=None,
    status=None,
    annotations=None,
    pulled=frozenset(),
    failing=frozenset(),
    **spec,
):
    """A View: `rolling` and `spec` are in wire names, as is `status`; verdicts say RUN for all nodes with pods."""
    if ds is None:
        strategy = {"type": strategy, **({"rollingUpdate": rolling} if rolling is not None else {})}
        ds = daemonset(updateStrategy=strategy, status=status, annotations=annotations, **spec)
    if verdicts is None:
        verdicts = dict.fromkeys(sorted({p.target_node for p in pods} | set(nodes or ())), RUN)
    found = nodes or {}
    return View(
        ds=ds,
        update=revision(f"ds-{hash}", number=len(revisions) + 1, hash=hash),
        revisions={name: revision(f"ds-{name}", number=i + 1, hash=name) for i, name in enumerate((*revisions, hash))},
        nodes={name: found.get(name) or node(name) for name in verdicts},
        verdicts=verdicts,
        pods=group(pods),
        now=parse_rfc3339(now),
        template_generation=generation,
        pulled=pulled,
        failing=failing,
    )


def targets(view, **rollout):
    """The targets of a rollout that has just begun, or is as far as the fields of RolloutStatus say."""
    return targets_for(view, RolloutStatus(revision=view.update.hash, **rollout))
