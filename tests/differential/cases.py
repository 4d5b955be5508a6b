"""A case: a cluster with Pods at its nodes, and Pods that come one after another."""

from __future__ import annotations

import copy

from differential import clusters, podspecs
from differential.clusters import Object, percent
from hypothesis import strategies as st

FEATURES = (*podspecs.FEATURES, "images")


class Case:
    """Objects for the API. Incoming Pods are few kinds, so that what is kept between Pods of a kind is used."""

    def __init__(self, nodes: list[Object], pods: list[Object], incoming: list[Object]) -> None:
        self.nodes = nodes
        self.pods = pods
        self.incoming = incoming

    def __repr__(self) -> str:
        return f"Case(nodes={self.nodes!r},\n pods={self.pods!r},\n incoming={self.incoming!r})"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A random case. Each is about a few features only, so that they meet more often."""
    features = frozenset(draw(st.sets(st.sampled_from(FEATURES), min_size=1, max_size=4)))
    nodes = draw(clusters.nodes(features))
    names = st.sampled_from([node["metadata"]["name"] for node in nodes])
    kinds = draw(clusters.lists_of(podspecs.template(features, 35), 3))
    pods = [
        _made(kind, "b", number, nodeName=node)
        for number, (kind, node) in enumerate(
            draw(clusters.lists_of(st.tuples(st.sampled_from(kinds), names), 16)) if kinds else []
        )
    ]
    new_kinds = draw(clusters.lists_of(podspecs.template(features), 3, least=1))
    order = draw(st.lists(st.sampled_from(new_kinds), min_size=5, max_size=10))
    return Case(nodes, pods, [_made(kind, "p", number) for number, kind in enumerate(order)])


def _made(kind: Object, prefix: str, number: int, **spec: object) -> Object:
    pod = copy.deepcopy(kind)
    pod["metadata"]["name"] = f"{prefix}{number}"
    pod["spec"].update(spec)
    return pod


__all__ = ["FEATURES", "Case", "cases", "percent"]
