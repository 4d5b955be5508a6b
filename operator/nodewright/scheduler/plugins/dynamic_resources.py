"""DynamicResources: Pods that claim devices are refused, since nothing here allocates them yet."""

from __future__ import annotations

from ..events import Event
from ..plugin import Context, Plugin, Rejected, Scope
from ..pods import PodPart

REASON = "pod has resource claims (spec.resourceClaims), and this scheduler does not allocate devices"


class DynamicResources(Plugin):
    """Holds Pods with `spec.resourceClaims` back: placed without their devices they could not run."""

    name = "DynamicResources"
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.POD_SPEC

    def prepare(self, ctx: Context) -> Rejected | None:
        """Reject Pods with claims, whatever the nodes have."""
        return Rejected(REASON) if ctx.pod.spec.resource_claims else None
