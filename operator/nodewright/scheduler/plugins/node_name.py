"""NodeName: a Pod that names its node runs there or nowhere."""

from __future__ import annotations

from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Scope
from ..pods import PodPart

REASON = "node(s) didn't match the requested node name"


class NodeName(Plugin):
    """Rejects all nodes but the one in `spec.nodeName`, where that is set (unresolvable)."""

    name = "NodeName"
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.NODE_ADD

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods that name no node."""
        if not ctx.pod.node_name:
            return None
        return FilterResult(ctx.nodes.positions_of({ctx.pod.node_name}), REASON, unresolvable=True)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """The node that is asked for."""
        return [f"the pod asks for node {ctx.pod.node_name}"]
