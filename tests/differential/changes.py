"""What happens between two Pods: nodes and placed Pods change, come and go."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from differential import clusters
from differential.clusters import NODE_LABELS, Object, percent, some
from differential.podspecs import POD_LABELS

# The key of a step that is no Pod, with the kind of the change.
CHANGE = "change"


def changes(draw: st.DrawFn, nodes: list[Object], pods: list[Object], features: frozenset[str]) -> list[Object]:
    """Some changes to nodes and Pods of the cluster. Those that went away earlier are passed over when it is time."""
    found = []
    for _ in range(draw(st.integers(0, 2))):
        if pods and draw(percent(40)):
            found.append(_pod_change(draw, draw(st.sampled_from(pods))["metadata"]))
        else:
            found.append(_node_change(draw, draw(st.sampled_from(nodes)), features))
    return found


def _pod_change(draw: st.DrawFn, meta: Object) -> Object:
    change: Object = {"namespace": meta["namespace"], "name": meta["name"]}
    if draw(st.booleans()):
        return {CHANGE: "delete pod", **change}
    # None takes a label away.
    labels: dict[str, Any] = dict.fromkeys(POD_LABELS)
    return {CHANGE: "label pod", **change, "labels": {**labels, **draw(some(POD_LABELS, 70))}}


def _node_change(draw: st.DrawFn, node: Object, features: frozenset[str]) -> Object:
    name = node["metadata"]["name"]
    change: Object = {"name": name}
    kinds = ("labels", "spec", "room", "replace", "delete")
    if "images" in features:
        # Upstream counts the nodes that have an image when it last had to look at a node anew, which may be long ago.
        kinds = kinds[:3]
    kind = draw(st.sampled_from(kinds))
    if kind == "labels":
        labels: dict[str, Any] = dict.fromkeys(NODE_LABELS)
        return {CHANGE: "node", **change, "labels": {**labels, **draw(some(NODE_LABELS, 70))}}
    if kind == "spec":
        return {CHANGE: "node", **change, "spec": {"unschedulable": draw(percent(40)), "taints": draw(clusters.taints)}}
    if kind == "room":
        return {CHANGE: "node", **change, "allocatable": draw(clusters.allocatable())}
    if kind == "replace":
        # Away and back again: its Pods stay.
        return {CHANGE: "replace node", "node": draw(clusters.node(name, features))}
    return {CHANGE: "delete node", **change}
