"""Short constructors of the controller's structs, for tests."""

import msgspec

from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Node, Pod, Revision

NOW = "2026-03-01T12:00:00Z"
TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


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
):
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
    raw = {
        "metadata": meta,
        "spec": {"nodeName": node if scheduled else "", "affinity": pinned},
        "status": {"phase": phase, "conditions": conditions},
    }
    return msgspec.convert(raw, Pod)


def daemonset(template=None, *, uid="uid", selector=None, collision_count=None, deleting=False, **spec):
    raw = {
        "metadata": {"name": "ds", "namespace": "ns", "uid": uid, "generation": 1},
        "spec": {
            "selector": selector or {"matchLabels": {"app": "a"}},
            "template": TEMPLATE if template is None else template,
            **spec,
        },
        "status": {"collisionCount": collision_count},
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
