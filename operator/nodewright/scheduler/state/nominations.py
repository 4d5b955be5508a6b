"""Waiting Pods that have a node in prospect: others of lower or equal priority must leave them their room."""

from __future__ import annotations

from collections.abc import Iterator

from ..pods import PodInfo


class Nominations:
    """Nominated Pods by node. A Pod that is placed is no longer nominated."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}
        self._at: dict[str, dict[str, PodInfo]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def node_of(self, uid: str) -> str:
        """The node that a Pod is nominated to, or ""."""
        return self._nodes.get(uid, "")

    def at(self, node: str) -> list[PodInfo]:
        """The Pods nominated to a node."""
        return list(self._at.get(node, {}).values())

    def put(self, pod: PodInfo, node: str) -> None:
        """Nominate a Pod, or renew what is known of it."""
        self.drop(pod.uid)
        self._nodes[pod.uid] = node
        self._at.setdefault(node, {})[pod.uid] = pod

    def drop(self, uid: str) -> bool:
        """The Pod is placed, gone, or nominated no more. True when it was nominated."""
        node = self._nodes.pop(uid, None)
        if node is None:
            return False
        del self._at[node][uid]
        if not self._at[node]:
            del self._at[node]
        return True

    def ahead_of(self, pod: PodInfo) -> Iterator[tuple[str, list[PodInfo]]]:
        """Per node, the nominated Pods that another Pod must leave room for: those of no lower priority."""
        for node in list(self._at):
            if ahead := self.ahead_at(node, pod):
                yield node, ahead

    def ahead_at(self, node: str, pod: PodInfo) -> list[PodInfo]:
        """Those of `ahead_of` at one node."""
        there = self._at.get(node)
        if not there:
            return []
        return [p for p in there.values() if p.priority >= pod.priority and p.uid != pod.uid]
