"""For which nodes a volume can be made: topology of the class, and storage that the driver has left."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from nodewright.kube.api.meta import LabelSelector

from ..node_selection import match_selector, match_term
from ..objects import NodeSelector, NodeSelectorTerm, Requirement
from ..requests import in_units, nano
from ..state import NodeView
from ..state.arrays import BoolArray
from ..state.storage import StorageState
from ..storage_objects import NO_PROVISIONER, Claim, CSIStorageCapacity, StorageClass


def in_topology(nodes: NodeView, storage_class: StorageClass) -> BoolArray:
    """Where the class makes volumes; nowhere for a class that makes none (upstream: MatchTopologySelectorTerms)."""
    if storage_class.provisioner in ("", NO_PROVISIONER):
        return np.zeros(len(nodes), dtype=np.bool_)
    if not storage_class.allowed_topologies:
        return np.ones(len(nodes), dtype=np.bool_)
    terms = [
        NodeSelectorTerm(
            match_expressions=[
                Requirement(key=r.key, operator="In", values=r.values) for r in t.match_label_expressions
            ]
        )
        for t in storage_class.allowed_topologies
    ]
    return match_selector(nodes, NodeSelector(node_selector_terms=terms))


def has_room(nodes: NodeView, storage: StorageState, claim: Claim, storage_class: StorageClass) -> BoolArray:
    """Where the driver has enough storage left for one volume of the claim's size.

    Everywhere for provisioners that do not publish how much they have (upstream: hasEnoughCapacity).
    """
    wanted = claim.spec.resources.requests.get("storage")
    driver = storage.drivers.get(storage_class.provisioner)
    if wanted is None or driver is None or not driver.spec.storage_capacity:
        return np.ones(len(nodes), dtype=np.bool_)
    size = in_units("storage", nano(wanted))
    mask = np.zeros(len(nodes), dtype=np.bool_)
    by_value: dict[str, set[str]] = defaultdict(set)
    for capacity in storage.capacities.values():
        topology = capacity.node_topology
        if capacity.storage_class_name != storage_class.key or topology is None or not _is_enough(capacity, size):
            continue
        if len(topology.match_labels) == 1 and not topology.match_expressions:
            ((key, value),) = topology.match_labels.items()
            by_value[key].add(value)
        else:
            mask |= _selects(nodes, topology)
    for key, values in by_value.items():
        ids, column = nodes.label(key)
        mask |= np.isin(ids, [n for value in values if (n := column.number(value)) is not None])
    return mask


def _is_enough(capacity: CSIStorageCapacity, size: int) -> bool:
    return capacity.limit is not None and in_units("storage", nano(capacity.limit)) >= size


def _selects(nodes: NodeView, selector: LabelSelector) -> BoolArray:
    """A label selector over nodes. An empty one selects all, unlike an empty term of a node selector."""
    requirements = [Requirement(key=k, operator="In", values=[v]) for k, v in selector.match_labels.items()]
    requirements += [Requirement(key=r.key, operator=r.operator, values=r.values) for r in selector.match_expressions]
    if not requirements:
        return np.ones(len(nodes), dtype=np.bool_)
    return match_term(nodes, NodeSelectorTerm(match_expressions=requirements))
