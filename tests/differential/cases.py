"""A case: a cluster with Pods at its nodes, and Pods that come one after another."""

from __future__ import annotations

import copy

from hypothesis import strategies as st

from differential import clusters, podspecs
from differential.clusters import Object, lists_of
from differential.podspecs import PREEMPTION

FEATURES = (*podspecs.FEATURES, "images", PREEMPTION)


class Case:
    """Objects for the API. Incoming Pods are few kinds, so that what is kept between Pods of a kind is used."""

    def __init__(self, nodes: list[Object], pods: list[Object], incoming: list[Object]) -> None:
        self.nodes = nodes
        self.pods = pods
        self.incoming = incoming

    def __repr__(self) -> str:
        return f"Case(nodes={self.nodes!r},\n pods={self.pods!r},\n incoming={self.incoming!r})"


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
    pods = [_made(kind, "b", number, nodeName=node) for number, (kind, node) in enumerate(there)]
    new_kinds = draw(lists_of(podspecs.template(features, podspecs.ALL), 3, least=1))
    order = draw(lists_of(st.sampled_from(new_kinds), 10, least=5))
    return Case(nodes, pods, [_made(kind, "p", number) for number, kind in enumerate(order)])


def _made(kind: Object, prefix: str, number: int, **spec: object) -> Object:
    pod = copy.deepcopy(kind)
    pod["metadata"]["name"] = f"{prefix}{number}"
    pod["spec"].update(spec)
    if "priorityClassName" in pod["spec"]:
        # No two are alike: which of two victims is left alone must not be up to chance.
        minute = ("b", "p").index(prefix)
        pod["status"] = {"startTime": f"2026-01-01T00:0{minute}:{number * 7 % 60:02}Z"}
    return pod
