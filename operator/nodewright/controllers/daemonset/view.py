"""What a decision about a DaemonSet is made from, and what a decision is. Pure data; the controller fills the one and
carries out the other, and `nodewright explain daemonset` shows both.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime

import msgspec

from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.model import DaemonSet, Node, Pod, Revision, RolloutStatus
from nodewright.controllers.daemonset.owntaints import OwnTaints
from nodewright.controllers.daemonset.pods import PodsByNode


class View(msgspec.Struct, frozen=True):
    """A DaemonSet and all that its next step depends on, at one moment.

    `verdicts` has an entry for every node that exists. `revisions` are the DaemonSet's own by hash, `update` among
    them, which holds the current template. `pulled` are nodes on which all images of `update` are known to be,
    `pull_errors` says why they can't be pulled on others (see `prepull`). `failing` are nodes on which pods of `update`
    were seen to fail. `own_taints` is how the DaemonSet treats this project's taints on nodes.
    """

    ds: DaemonSet
    update: Revision
    revisions: Mapping[str, Revision]
    nodes: Mapping[str, Node]
    verdicts: Mapping[str, Verdict]
    pods: PodsByNode
    now: datetime
    template_generation: str | None = None
    pulled: Set[str] = frozenset()
    failing: Set[str] = frozenset()
    pull_errors: Mapping[str, str] = msgspec.field(default_factory=dict)
    own_taints: OwnTaints = OwnTaints()

    @property
    def wanted(self) -> list[str]:
        """Names of the nodes that should run a pod, sorted."""
        return sorted(name for name, verdict in self.verdicts.items() if verdict.should_run)


class PodEvent(msgspec.Struct, frozen=True):
    """An event on the DaemonSet that goes with a decision."""

    type: str
    reason: str
    message: str


class Plan(msgspec.Struct):
    """What to do now: nodes that get a pod, pods that go, pods that are updated in place, nodes that pull images.

    `retry_after` is when to look again (seconds), where no change will tell.
    """

    create: list[str] = msgspec.field(default_factory=list)
    delete: list[Pod] = msgspec.field(default_factory=list)
    in_place: list[Pod] = msgspec.field(default_factory=list)
    pre_pull: list[str] = msgspec.field(default_factory=list)
    events: list[PodEvent] = msgspec.field(default_factory=list)
    retry_after: float | None = None

    def retry(self, delay: float | None) -> None:
        """Ask to look again after at most `delay` seconds."""
        if delay is not None:
            self.retry_after = delay if self.retry_after is None else min(self.retry_after, delay)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to create and nothing to delete."""
        return not (self.create or self.delete)


class Targets(msgspec.Struct, frozen=True):
    """Which template each node's pod should have.

    `hash` is the revision that pods are rolled to. Nodes in `held` are out of the rollout for now: their pods stay as
    they are, and a pod that is missing there is made from the `stable` revision. `classes` has the node class of nodes
    that an override matches (see `sizes`).
    """

    hash: str
    stable: str
    held: Set[str] = frozenset()
    classes: Mapping[str, str] = msgspec.field(default_factory=dict)
    generation: str | None = None

    def hash_for(self, node: str) -> str:
        """The revision that a new pod on this node is made from."""
        return self.stable if node in self.held else self.hash


class Decision(msgspec.Struct, frozen=True):
    """What `decide` gives.

    `phase` says in a word what the rollout is doing (see `progress`), `failing` where pods of the newest template fail,
    `late_in` when that may have changed (seconds), with nothing else changing.
    """

    targets: Targets
    plan: Plan
    rollout: RolloutStatus
    phase: str = ""
    failing: Set[str] = frozenset()
    late_in: float | None = None
