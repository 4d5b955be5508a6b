"""NodePorts: no two Pods of a node use the same host port at the same address."""

from __future__ import annotations

from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Scope
from ..pods import PodPart

REASON = "node(s) didn't have free ports for the requested pod ports"


class NodePorts(Plugin):
    """Rejects nodes where a wanted host port is in use."""

    name = "NodePorts"
    scope = Scope.NODE_PODS
    reads = PodPart.SPEC
    events = Event.POD_DELETE | Event.NODE_ADD

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods without host ports."""
        wanted = ctx.pod.template.host_ports
        if not wanted:
            return None
        index = ctx.nodes.state.ports
        taken = {row for port in wanted for row in index.conflicts(port)}
        return FilterResult(~ctx.nodes.mask_of_rows(taken), REASON)
