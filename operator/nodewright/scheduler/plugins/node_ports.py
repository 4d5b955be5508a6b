"""NodePorts: no two Pods of a node use the same host port at the same address."""

from __future__ import annotations

from .. import wording
from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Scope
from ..pods import PodInfo, PodPart
from ..state import ClusterState

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

    def detail(self, ctx: Context, position: int) -> list[str]:
        """Who has the ports."""
        there = ctx.nodes.state.pods_at[ctx.nodes.row(position)].values()
        found = []
        for wanted in ctx.pod.template.host_ports:
            holders = [pod.key for pod in there if any(wanted.conflicts(had) for had in pod.template.host_ports)]
            if holders:
                found.append(f"host port {wording.port(wanted)} is used by {wording.names(sorted(holders))}")
        return found

    def wakes(self, waiting: PodInfo, kind: Event, other: PodInfo, state: ClusterState) -> bool:
        """A Pod that leaves helps when it had one of the wanted ports."""
        return any(taken.conflicts(port) for port in waiting.template.host_ports for taken in other.template.host_ports)
