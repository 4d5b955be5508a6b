"""A scheduler plugin: Pods stay away from loud nodes, and go where few Pods are."""

from nodewright.scheduler.events import Event
from nodewright.scheduler.plugin import Context, FilterResult, Plugin, Scope
from nodewright.scheduler.pods import PodPart
from nodewright.scheduler.state.arrays import IntArray


class QuietNodes(Plugin):
    """Reads the label example.com/noise."""

    name = "QuietNodes"
    scope = Scope.NODE_PODS  # answers depend on the node object and on the Pods there
    reads = PodPart.SPEC
    events = Event.NODE_ADD | Event.NODE_LABEL  # what can make a rejected Pod fit

    def filter(self, ctx: Context) -> FilterResult:
        """Not where the label says loud."""
        ids, column = ctx.nodes.label("example.com/noise")
        return FilterResult(ids != column.number("loud"), "node(s) were too loud")

    def score(self, ctx: Context) -> IntArray:
        """100 for a node without Pods, one less for each Pod there."""
        return 100 - ctx.nodes.pod_count.clip(0, 100)
