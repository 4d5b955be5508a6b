"""The contract of a plugin: a small class that answers for all nodes at once, in arrays.

    class QuietNodes(Plugin):
        name = "QuietNodes"
        scope = Scope.NODES
        events = Event.NODE_ADD | Event.NODE_LABEL

        def filter(self, ctx: Context) -> FilterResult:
            ids, column = ctx.nodes.label("noise")
            return FilterResult(ids != column.number("loud"), "node(s) were too loud")

A plugin says what its answers depend on (`scope`: which part of the cluster; `reads`: which parts of the Pod), and the
evaluator uses that to keep masks and scores from one Pod to the next. The defaults are the cautious ones: an answer
is worth nothing once anything in the cluster has changed. Plugins are called in one thread, never await, and keep no
state that depends on the order of calls. An exception fails the cycle of that one Pod, with the plugin's name in the
event.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from nodewright.kube.client import Client

from .events import Event
from .metrics import Asked
from .pods import PodInfo, PodPart
from .state import ClusterState, NodeView
from .state.arrays import BoolArray, IntArray

MAX_SCORE = 100


class Scope(enum.IntEnum):
    """What part of the cluster an answer for one node depends on."""

    NODES = 0  # node objects only
    NODE_PODS = 1  # node objects, and the Pods at that node
    CLUSTER = 2  # anything: an answer for one node may change when a Pod lands on another


class Reason(msgspec.Struct):
    """Why nodes were rejected, in words, and which of them (default: all that failed).

    `unresolvable` tells where evicting Pods would not help (upstream: UnschedulableAndUnresolvable).
    """

    text: str
    where: Any = None
    unresolvable: Any = False


class FilterResult:
    """A filter's answer: where the Pod may run, and the reason or reasons where it may not."""

    __slots__ = ("ok", "reasons")

    def __init__(self, ok: BoolArray, reasons: str | Sequence[Reason], *, unresolvable: bool = False) -> None:
        self.ok = ok
        self.reasons: Sequence[Reason] = (Reason(reasons, None, unresolvable),) if isinstance(reasons, str) else reasons


class Rejected(msgspec.Struct):
    """Returned by `prepare`: no node can take this Pod, whatever it looks like. Upstream: a PreFilter rejection."""

    reason: str


class OnlyNodes(msgspec.Struct):
    """Returned by `prepare`: only the nodes with these names need to be looked at."""

    names: set[str]


class Context:
    """One Pod against the nodes of a view.

    `feasible` is set while scoring: the nodes that passed all filters. `data` is for what `prepare` finds out about
    the Pod: it may be kept and reused for Pods that the plugin cannot tell apart.
    """

    __slots__ = ("data", "feasible", "nodes", "pod")

    def __init__(self, pod: PodInfo, nodes: NodeView, data: dict[str, Any]) -> None:
        self.pod = pod
        self.nodes = nodes
        self.data = data
        self.feasible: BoolArray = nodes.present


class Plugin:
    """Base of all plugins. Override `filter`, `score` or both; the rest as needed."""

    name: ClassVar[str]
    # Weight of the score when the profile gives none.
    weight: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.CLUSTER
    reads: ClassVar[PodPart] = PodPart.SPEC | PodPart.NAMESPACE | PodPart.LABELS | PodPart.ANNOTATIONS
    # Events after which a Pod that this plugin rejected is tried again.
    events: ClassVar[Event] = Event.ANY
    # The type of the profile's `pluginConfig` arguments, or None where the plugin takes none.
    args_type: ClassVar[type[msgspec.Struct] | None] = None
    # Counts what the plugin is asked; the profile that the plugin belongs to sets it.
    asked: Asked = Asked()

    def __init__(self, args: Any = None) -> None:
        """`args` is an instance of `args_type`. Raise ValueError, naming the field, for values that make no sense."""

    def prepare(self, ctx: Context) -> Rejected | OnlyNodes | None:
        """Look at the Pod once, before any node."""
        return None

    def filter(self, ctx: Context) -> FilterResult | None:
        """Where the Pod may run; None when this plugin has no objection anywhere."""
        return None

    def score(self, ctx: Context) -> IntArray | None:
        """How good each node is, higher is better; None when this plugin does not care for this Pod."""
        return None

    def normalize(self, ctx: Context, scores: IntArray) -> IntArray:
        """Bring scores into 0..100 once those of all nodes are known. Only `ctx.feasible` nodes count."""
        return scores

    def wakes(self, waiting: PodInfo, kind: Event, other: PodInfo, state: ClusterState) -> bool:
        """Whether what happened to another, placed Pod (one of the POD_ events) may help one that this plugin rejected.

        A closer look than `events` takes; a wrong yes costs an attempt, a wrong no up to five minutes of waiting.
        """
        return True

    def detail(self, ctx: Context, position: int) -> list[str]:
        """Why `filter` rejects the node at a position of `ctx.nodes`: what is missing, with numbers and names.

        For `explain`: one sentence for each thing that is missing, none where the reason says it all. Asked about nodes
        that the filter has rejected; for a Pod that `prepare` has rejected, about any one node.
        """
        return []

    def shares(self, pod: PodInfo) -> bool:
        """Whether the answers for this Pod may be kept for others of the same signature (see `reads`)."""
        return True

    def reserve(self, pod: PodInfo, node: str, state: ClusterState) -> None:
        """The Pod goes to this node: hold what it needs beyond room. Raise to refuse; the attempt then fails.

        Called in the cycle, before the binding. Must hold nothing when it raises.
        """

    def unreserve(self, pod: PodInfo, node: str, state: ClusterState) -> None:
        """The binding failed: give back what `reserve` held. Must not raise, and may be called twice."""

    def wants_pre_bind(self, pod: PodInfo) -> bool:
        """Whether `pre_bind` has anything to do for this Pod."""
        return True

    async def pre_bind(self, pod: PodInfo, node: str, state: ClusterState, client: Client) -> None:
        """What must be written to the API before the binding. Raise to give up: the Pod is tried again."""

    @classmethod
    def extends(cls, point: str) -> bool:
        """Whether the class overrides the method of that name."""
        return getattr(cls, point) is not getattr(Plugin, point)


class Refusal(Exception):
    """Raised by a plugin's `reserve` or `pre_bind` that has its reasons: people are shown its text alone."""


class PluginError(Exception):
    """A plugin raised. `str()` is what the Pod's event says, in upstream's form."""

    def __init__(self, plugin: str, point: str, cause: BaseException) -> None:
        text = str(cause) if isinstance(cause, Refusal) else f"{type(cause).__name__}: {cause}"
        binding = {"reserve": "Reserve", "pre_bind": "PreBind"}.get(point)
        if binding is not None:
            super().__init__(f'running {binding} plugin "{plugin}": {text}')
        else:
            super().__init__(f'running "{plugin}" {point} plugin: {text}')
        self.plugin = plugin
        self.point = point


def normalize_by_max(ctx: Context, scores: IntArray, *, reverse: bool = False) -> IntArray:
    """Scale so that the best feasible score becomes 100 (upstream: DefaultNormalizeScore). Scores must be >= 0."""
    feasible = scores[ctx.feasible]
    highest = int(feasible.max()) if feasible.size else 0
    if highest <= 0:
        return np.full_like(scores, MAX_SCORE) if reverse else scores
    scaled: IntArray = scores * MAX_SCORE // highest
    return MAX_SCORE - scaled if reverse else scaled
