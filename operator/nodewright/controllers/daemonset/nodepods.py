"""The pods of a few nodes, kept at hand: an index of all pods by node would cost memory for every pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nodewright.controllers.daemonset.model import Node, Pod


class NodePods:
    """Follows the pods on those nodes that `interesting` is true for, by what the caches' handlers tell it."""

    def __init__(self, interesting: Callable[[Node], bool], pods: Callable[[], Iterable[Pod]]) -> None:
        """`pods` gives all pods; it is asked once for each node that becomes interesting."""
        self._interesting = interesting
        self._all = pods
        self._pods: dict[str, dict[str, Pod]] = {}

    def __contains__(self, node: str) -> bool:
        """Whether the node is followed."""
        return node in self._pods

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that are followed."""
        return list(self._pods)

    def on(self, node: str) -> list[Pod]:
        """The pods that are bound to the node; none for nodes that are not followed."""
        return list(self._pods.get(node, {}).values())

    def node_changed(self, old: Node | None, new: Node | None) -> bool:
        """Take note; tells whether the node is followed now and was not, or the other way round."""
        node = new if new is not None else old
        if node is None:
            return False
        name = node.metadata.name
        follow = new is not None and self._interesting(new)
        if follow == (name in self._pods):
            return False
        if follow:
            self._pods[name] = {pod.key: pod for pod in self._all() if pod.spec.node_name == name}
        else:
            del self._pods[name]
        return True

    def pod_changed(self, old: Pod | None, new: Pod | None) -> str | None:
        """Take note; the node's name where the pod is on one that is followed."""
        pod = new if new is not None else old
        if pod is None or pod.spec.node_name not in self._pods:
            return None
        found = self._pods[pod.spec.node_name]
        if new is not None:
            found[pod.key] = new
        else:
            found.pop(pod.key, None)
        return pod.spec.node_name
