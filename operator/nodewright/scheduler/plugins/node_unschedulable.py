"""NodeUnschedulable: cordoned nodes take only Pods that tolerate the cordon's taint."""

from __future__ import annotations

from .. import wording
from ..events import Event
from ..objects import Taint
from ..plugin import Context, FilterResult, Plugin, Scope
from ..pods import PodPart
from ..tolerations import tolerated

REASON = "node(s) were unschedulable"
CORDON = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


class NodeUnschedulable(Plugin):
    """Rejects nodes with `spec.unschedulable` (unresolvable)."""

    name = "NodeUnschedulable"
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.NODE_ADD | Event.NODE_TAINT | Event.POD_SPEC

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods that tolerate the cordon."""
        if tolerated(CORDON, ctx.pod.spec.tolerations):
            return None
        return FilterResult(~ctx.nodes.unschedulable, REASON, unresolvable=True)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """The toleration that would help."""
        return [f"the node is cordoned, and the pod does not tolerate {wording.taint(CORDON)}"]
