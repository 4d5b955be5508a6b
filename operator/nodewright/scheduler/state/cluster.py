"""Nodes × resources in exact 64-bit integers, updated Pod by Pod.

Scheduling runs in one thread and a cycle never awaits, so the state at the start of a cycle is its snapshot:
nothing can change until the cycle ends. What changed between two cycles is in the journal, so that cached results
are corrected at the touched rows and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..objects import Node
from ..pods import PodInfo
from ..requests import in_units, nano
from .arrays import BoolArray, IntArray, doubled, grown
from .columns import LabelColumns, TaintSets
from .counts import PodCounts
from .images import ImageIndex
from .nominations import Nominations
from .owners import Owners
from .ports import PortIndex
from .priorities import PriorityLevels
from .storage import StorageState

FIXED_RESOURCES = ("cpu", "memory", "ephemeral-storage")
JOURNAL_LIMIT = 65536


class ClusterState:
    """All nodes with what their Pods use. Rows of removed nodes are used again.

    A Pod whose node is not known (yet) holds a row that is not `present`: it counts as soon as the node appears.
    Amounts are integers (cpu in millicores); `allocatable` and `requested` have shape (resources, rows).
    """

    def __init__(self, capacity: int = 64) -> None:
        self.nodes: list[Node | None] = []
        self.names: list[str] = []
        self.rows: dict[str, int] = {}
        self.resources: dict[str, int] = {name: index for index, name in enumerate(FIXED_RESOURCES)}
        self.present: BoolArray = np.zeros(capacity, dtype=np.bool_)
        self.unschedulable: BoolArray = np.zeros(capacity, dtype=np.bool_)
        self.allocatable: IntArray = np.zeros((4, capacity), dtype=np.int64)
        self.requested: IntArray = np.zeros((4, capacity), dtype=np.int64)
        self.nonzero: IntArray = np.zeros((2, capacity), dtype=np.int64)
        self.pod_count: IntArray = np.zeros(capacity, dtype=np.int64)
        self.pod_limit: IntArray = np.zeros(capacity, dtype=np.int64)
        self.labels = LabelColumns(self.nodes, capacity)
        self.taints = TaintSets(capacity)
        self.ports = PortIndex()
        self.images = ImageIndex()
        self.storage = StorageState()
        self.counts = PodCounts(capacity)
        self.priorities = PriorityLevels(capacity)
        self.owners = Owners()
        self.nominated = Nominations()
        self.pods: dict[str, tuple[int, PodInfo]] = {}
        self.pods_at: list[dict[str, PodInfo]] = []
        self.node_count = 0
        # Grows when any node object changes in a way that a decision may see.
        self.node_generation = 0
        # Grows when anything else does that is neither node nor Pod: namespaces, owners of Pods, volumes.
        self.world_generation = 0
        self._journal: list[int] = []
        self._journal_start = 0
        self._free: list[int] = []

    # --- reading -------------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """Rows in use, counting those that are not present."""
        return len(self.nodes)

    @property
    def pod_generation(self) -> int:
        """Grows by one with each Pod added or removed."""
        return self._journal_start + len(self._journal)

    def touched_since(self, generation: int) -> set[int] | None:
        """Rows whose Pods changed since `pod_generation` was `generation`, or None when that is too long ago."""
        if generation < self._journal_start:
            return None
        return set(self._journal[generation - self._journal_start :])

    def node_of(self, uid: str) -> str | None:
        """The node that a Pod is counted at, or None."""
        entry = self.pods.get(uid)
        return None if entry is None else self.names[entry[0]]

    def present_nodes(self) -> Iterator[tuple[int, Node]]:
        """Rows and objects of the nodes that exist."""
        for row, node in enumerate(self.nodes):
            if node is not None:
                yield row, node

    # --- nodes ---------------------------------------------------------------------------------------------------

    def set_node(self, node: Node) -> bool:
        """Add or update a node. False when nothing changed that a decision may see (a heartbeat, for one).

        Raises ValueError where a quantity cannot be read; the state is then as before.
        """
        amounts = {name: in_units(name, nano(text)) for name, text in node.status.allocatable.items()}
        name = node.metadata.name
        row = self._row(name)
        old = self.nodes[row]
        if old is not None:
            if same_for_scheduling(old, node):
                self.nodes[row] = node
                return False
            self.images.remove(row, old)
        else:
            self.node_count += 1
        self.nodes[row] = node
        self.present[row] = True
        self.unschedulable[row] = node.spec.unschedulable
        self.pod_limit[row] = amounts.pop("pods", 0)
        columns = [(self.resource(resource), amount) for resource, amount in amounts.items()]
        self.allocatable[:, row] = 0
        for column, amount in columns:
            self.allocatable[column, row] = amount
        self.labels.update(row, node)
        self.taints.set(row, tuple(node.spec.taints))
        self.images.add(row, node)
        self.node_generation += 1
        return True

    def remove_node(self, name: str) -> None:
        """Remove a node. Pods still counted there keep the row until they go."""
        row = self.rows.get(name)
        if row is None or (old := self.nodes[row]) is None:
            return
        self.images.remove(row, old)
        self.nodes[row] = None
        self.node_count -= 1
        self.present[row] = False
        self.unschedulable[row] = False
        self.allocatable[:, row] = 0
        self.pod_limit[row] = 0
        self.labels.update(row, None)
        self.taints.set(row, ())
        self.storage.node_removed(name)
        self.node_generation += 1
        self._release(row)

    # --- pods ----------------------------------------------------------------------------------------------------

    def add_pod(self, pod: PodInfo, node: str) -> None:
        """Count a Pod at a node, whether bound or assumed. A Pod that is counted already moves."""
        entry = self.pods.get(pod.uid)
        if entry is not None:
            before = entry[1]
            if (
                self.names[entry[0]] == node
                and before.template is pod.template
                and before.class_key == pod.class_key
                and before.priority == pod.priority
            ):
                # An assumed Pod was confirmed, or only its status changed: nothing to count, nothing to correct.
                self.pods[pod.uid] = (entry[0], pod)
                self.pods_at[entry[0]][pod.uid] = pod
                return
            self.remove_pod(pod.uid)
        row = self._row(node)
        self.pods[pod.uid] = (row, pod)
        self.pods_at[row][pod.uid] = pod
        self._count(row, pod, 1)
        self.counts.add(row, pod)
        self.priorities.change(row, pod, 1)
        self.ports.add(row, pod.template.host_ports)
        if pod.spec.volumes:
            self.storage.pod_added(row, pod)

    def remove_pod(self, uid: str) -> PodInfo | None:
        """Stop counting a Pod; returns what was counted, or None."""
        entry = self.pods.pop(uid, None)
        if entry is None:
            return None
        row, pod = entry
        del self.pods_at[row][uid]
        self._count(row, pod, -1)
        self.counts.remove(row, pod)
        self.priorities.change(row, pod, -1)
        self.ports.remove(row, pod.template.host_ports)
        if pod.spec.volumes:
            self.storage.pod_removed(row, pod)
        self._release(row)
        return pod

    def _count(self, row: int, pod: PodInfo, sign: int) -> None:
        template = pod.template
        for name, amount in template.requests.items():
            column = self.resource(name)  # may replace the array by a larger one
            self.requested[column, row] += sign * amount
        self.nonzero[0, row] += sign * template.nonzero_cpu
        self.nonzero[1, row] += sign * template.nonzero_memory
        self.pod_count[row] += sign
        self._journal.append(row)
        if len(self._journal) > JOURNAL_LIMIT:
            drop = JOURNAL_LIMIT // 2
            del self._journal[:drop]
            self._journal_start += drop

    # --- room ----------------------------------------------------------------------------------------------------

    def resource(self, name: str) -> int:
        """The index of a resource in `allocatable` and `requested`; new names get one."""
        index = self.resources.get(name)
        if index is None:
            index = self.resources[name] = len(self.resources)
            if index >= len(self.allocatable):
                extra = ((0, index), (0, 0))
                self.allocatable = np.pad(self.allocatable, extra)
                self.requested = np.pad(self.requested, extra)
        return index

    def _row(self, name: str) -> int:
        row = self.rows.get(name)
        if row is None:
            if self._free:
                row = self._free.pop()
                self.names[row] = name
            else:
                row = len(self.nodes)
                self._reserve(row + 1)
                self.nodes.append(None)
                self.names.append(name)
                self.pods_at.append({})
            self.rows[name] = row
        return row

    def _release(self, row: int) -> None:
        if self.nodes[row] is None and not self.pods_at[row]:
            del self.rows[self.names[row]]
            self.names[row] = ""
            self._free.append(row)

    def _reserve(self, needed: int) -> None:
        capacity = self.present.shape[0]
        if needed <= capacity:
            return
        capacity = doubled(capacity, needed)
        for name in (
            "present",
            "unschedulable",
            "allocatable",
            "requested",
            "nonzero",
            "pod_count",
            "pod_limit",
        ):
            setattr(self, name, grown(getattr(self, name), capacity))
        self.counts.grow(capacity)
        self.priorities.grow(capacity)
        self.labels.grow(capacity)
        self.taints.grow(capacity)


def same_for_scheduling(old: Node, new: Node) -> bool:
    """Whether two versions of a node are equal in all that a decision may see."""
    return (
        old.spec == new.spec
        and old.status == new.status
        and old.metadata.labels == new.metadata.labels
        and old.metadata.annotations == new.metadata.annotations
        and old.metadata.uid == new.metadata.uid
    )
