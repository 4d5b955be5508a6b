"""What one side shows, without what is random: names of Pods, UIDs, hashes, times; nodes as what is on them."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from typing import Any

from differential.daemonsets.side import LONG_AGO, Object, Side, node_of
from nodewright.kube.resources import APPS_DAEMONSETS, CONTROLLERREVISIONS, EVENTS, NODES, PODS

HASH = "controller-revision-hash"
_NOT_COPIED = "kubectl.kubernetes.io/last-applied-configuration"

# Reasons of events that upstream does not have.
_OURS_ONLY = ("SelectorOverlap",)

Picture = dict[str, Any]


def picture(side: Side) -> Picture:
    """All that the two sides are to have in common."""
    return {
        "status": {ds["metadata"]["name"]: ds.get("status") for ds in side.all(APPS_DAEMONSETS)},
        "nodes": sorted(node_state(side, node) for node in _places(side)),
        "revisions": _revisions(side),
        "events": _events(side),
    }


def differences(theirs: Picture, ours: Picture) -> str:
    """The difference as text (- upstream, + ours); empty where there is none."""
    if theirs == ours:
        return ""
    return "\n".join(difflib.unified_diff(_lines(theirs), _lines(ours), "upstream", "ours", lineterm="", n=2))


def _lines(shown: Picture) -> list[str]:
    return json.dumps(shown, indent=1, sort_keys=True).replace('\\"', '"').splitlines()


# --- nodes and Pods ---------------------------------------------------------------------------------------------------


def _places(side: Side) -> list[str]:
    """Nodes, and what Pods take for one."""
    return sorted({n["metadata"]["name"] for n in side.all(NODES)} | {node_of(pod) for pod in side.all(PODS)})


def node_state(side: Side, name: str) -> str:
    """A node and its Pods, as text; two nodes of which this is equal are alike."""
    node = next((n for n in side.all(NODES) if n["metadata"]["name"] == name), None)
    about: Object = {"there": node is not None}
    if node is not None:
        about["labels"] = {k: v for k, v in node["metadata"]["labels"].items() if k != "name"}
        about["taints"] = [(t["key"], t["effect"]) for t in node["spec"].get("taints") or ()]
    about["pods"] = sorted(pod_state(side, pod) for pod in side.all(PODS) if node_of(pod) == name)
    return json.dumps(about, sort_keys=True)


def pod_state(side: Side, pod: Object) -> str:
    """A Pod as text; what names its node or is random is left out."""
    meta, node = pod["metadata"], node_of(pod)
    labels = dict(meta.get("labels") or {})
    if HASH in labels:
        labels[HASH] = _revision_number(side, labels[HASH])
    uids = {ds["metadata"]["uid"]: ds["metadata"]["name"] for ds in side.all(APPS_DAEMONSETS)}
    spec = json.dumps(pod["spec"], sort_keys=True)
    state = {
        "revision": labels.pop(HASH, None),
        "labels": labels,
        "annotations": meta.get("annotations"),
        "generateName": meta.get("generateName"),
        "owners": _owners(meta, uids),
        "finalizers": meta.get("finalizers"),
        "deleted": "deletionTimestamp" in meta,
        "bound": "nodeName" in pod["spec"],
        "phase": pod["status"].get("phase"),
        "ready": ready_since(pod) and ("long" if ready_since(pod) == LONG_AGO else "just"),
        "spec": spec.replace(f'"{node}"', '"NODE"') if node else spec,
    }
    return json.dumps(state, sort_keys=True)


def ready_since(pod: Object) -> str | None:
    """When the Pod became ready, None while it is not."""
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "True":
            return str(condition["lastTransitionTime"])
    return None


def _owners(meta: Object, uids: dict[str, str]) -> list[Object]:
    owners = [dict(ref) for ref in meta.get("ownerReferences") or ()]
    for ref in owners:
        ref["uid"] = uids.get(ref["uid"], "of one that is gone")
    return owners


# --- revisions and events ---------------------------------------------------------------------------------------------


def revision_hash(revision: Object) -> str:
    """What Pods of it carry."""
    return str((revision["metadata"].get("labels") or {}).get(HASH))


def _revision_number(side: Side, value: str) -> str:
    found = [r["revision"] for r in side.all(CONTROLLERREVISIONS) if revision_hash(r) == value]
    return f"revision {found[0]}" if found else "none that is there"


def _revisions(side: Side) -> list[Object]:
    uids = {ds["metadata"]["uid"]: ds["metadata"]["name"] for ds in side.all(APPS_DAEMONSETS)}
    shown = []
    for revision in side.all(CONTROLLERREVISIONS):
        meta = revision["metadata"]
        labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
        annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != _NOT_COPIED}
        shown.append(
            {
                "number": revision["revision"],
                "labels": labels,
                "annotations": annotations,
                "owners": _owners(meta, uids),
                "is named by its hash": meta["name"].endswith(f"-{(meta.get('labels') or {}).get(HASH)}"),
                "data": json.dumps(revision.get("data")),  # in its own order
            }
        )
    return sorted(shown, key=lambda r: (r["number"], r["data"]))


def _events(side: Side) -> dict[str, int]:
    """How many different events there are of each kind.

    Not how often each has come: creations are tried again in time, and upstream at times deletes a Pod twice.
    """
    found: Counter[str] = Counter()
    for event in side.all(EVENTS):
        if event["reason"] in _OURS_ONLY:
            continue
        message = re.sub(r"\b(ds|other)-([a-z0-9]{5}\b)?", r"\1-POD", event["message"])
        message = re.sub(r"\bn\d+\b", "NODE", message).replace(side.namespace, "NAMESPACE")
        source = event["source"].get("component")
        text = f"{event['type']} {event['reason']} of {event['involvedObject']['kind']} by {source}: {message}"
        found[text] += 1
    return {text: 1 if " FailedCreate " in text else count for text, count in found.items()}
