"""A case: a cluster with Pods at its nodes, and Pods that come one after another."""

from __future__ import annotations

import copy
from collections.abc import Hashable

from hypothesis import strategies as st

from differential import clusters, podspecs
from differential.changes import CHANGE, changes
from differential.clusters import Object, lists_of
from differential.podspecs import PREEMPTION
from differential.volumes import FOR_ONE

CHANGES = "changes"
FEATURES = (*podspecs.FEATURES, "images", PREEMPTION, CHANGES)


class Case:
    """Objects for the API; steps are Pods to be placed, and changes (see `changes`).

    Incoming Pods are of few kinds, so that what our scheduler keeps for a kind of Pods is used.
    """

    def __init__(self, nodes: list[Object], pods: list[Object], steps: list[Object]) -> None:
        self.nodes = nodes
        self.pods = pods
        self.steps = steps

    def __repr__(self) -> str:
        return f"Case(nodes={self.nodes!r},\n pods={self.pods!r},\n steps={self.steps!r})"


@st.composite
def cases(draw: st.DrawFn, *, about: str | None = None) -> Case:
    """A random case. Each is about a few features only, so that they meet more often; `about` is always among them."""
    features = frozenset(draw(lists_of(st.sampled_from(FEATURES), 4 if about else 5, least=0 if about else 1)))
    crowded = about == PREEMPTION
    if about is not None:
        features |= {about}
    nodes = draw(clusters.nodes(features))
    names = st.sampled_from([node["metadata"]["name"] for node in nodes])
    kinds = draw(lists_of(podspecs.template(features, podspecs.VICTIMS, 35), 4, least=1))
    there = draw(lists_of(st.tuples(st.sampled_from(kinds), names), 24, least=8 if crowded else 0))
    pods = [_made(kind, "b", number, nodeName=node) for number, (kind, node) in enumerate(_without_sharing(there))]
    new_kinds = draw(lists_of(podspecs.template(features, podspecs.ALL), 3, least=1))
    order = draw(lists_of(st.sampled_from(new_kinds), 10, least=5))
    steps: list[Object] = []
    for number, kind in enumerate(order):
        if CHANGES in features and number:
            steps += changes(draw, nodes, [*pods, *(step for step in steps if CHANGE not in step)], features)
        steps.append(_made(kind, "p", number))
    return Case(nodes, pods, steps)


def _without_sharing(there: list[tuple[Object, str]]) -> list[tuple[Object, str]]:
    """Without the Pods that would share what is for one only: a claim, or a port of a host.

    No scheduler would have placed them, and upstream takes such a thing for free once one of its holders has gone.
    """
    kept = []
    held: set[Hashable] = set()
    for kind, node in there:
        claims = {(kind["metadata"]["namespace"],)} if _has_claim_for_one(kind) else set()
        ports = kind["spec"]["containers"][0].get("ports", ())
        wanted = claims | {(node, port["hostPort"], port.get("protocol", "TCP")) for port in ports}
        if not wanted & held:
            held |= wanted
            kept.append((kind, node))
    return kept


def _has_claim_for_one(kind: Object) -> bool:
    return any(volume.get("persistentVolumeClaim") == FOR_ONE for volume in kind["spec"].get("volumes", ()))


def _made(kind: Object, prefix: str, number: int, **spec: object) -> Object:
    pod = copy.deepcopy(kind)
    pod["metadata"]["name"] = f"{prefix}{number}"
    pod["spec"].update(spec)
    if "priorityClassName" in pod["spec"]:
        # No two are alike: which of two victims is left alone must not be up to chance.
        minute = ("b", "p").index(prefix)
        pod["status"] = {"startTime": f"2026-01-01T00:0{minute}:{number * 7 % 60:02}Z"}
    return pod
