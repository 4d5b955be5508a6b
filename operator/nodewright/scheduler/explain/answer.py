"""An explanation, as it is printed with `-o json|yaml`."""

from __future__ import annotations

import msgspec


class Said(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """Base: camelCase, and nothing where there is nothing to say."""


class Score(msgspec.Struct):
    """A plugin's opinion of a node: as computed, brought into 0..100, and times its weight."""

    raw: int
    normalized: int
    weight: int
    weighted: int


class Obstacle(Said):
    """A filter that rejects a node: its reasons, what is missing in sentences, and whether evicting may change it."""

    plugin: str
    reasons: list[str]
    details: list[str] = []
    evictable: bool = False

    @property
    def sentences(self) -> list[str]:
        """What is missing; the reasons where the plugin says no more."""
        return self.details or self.reasons


class NodeVerdict(Said):
    """One node: the first filter that rejected it and why, or the scores and their total.

    `missing` has all filters that reject the node, since all of them have to be satisfied.
    """

    node: str
    fits: bool
    plugin: str = ""
    reasons: list[str] = []
    missing: list[Obstacle] = []
    # Nominated Pods of no lower priority: the Pod would fit, but not beside them.
    kept_for: list[str] = []
    scores: dict[str, Score] = {}
    total: int | None = None
    # The Pod is bound here.
    bound: bool = False
    # The Pod was nominated to this node.
    nominated: bool = False
    # One of the nodes that a decision now would choose among.
    best: bool = False


class Victim(Said):
    """A Pod that would be evicted, and the budgets that count it."""

    pod: str
    priority: int = 0
    budgets: list[str] = []


class Eviction(Said):
    """A node where evicting would make room: whom to evict, and how many of them against a budget."""

    node: str
    victims: list[Victim]
    violations: int = 0
    chosen: bool = False


class Preemption(Said):
    """What preemption would do for a Pod that fits nowhere; `why` tells where it does nothing.

    In large clusters the scheduler stops looking after `considered` candidates, and may take one of others.
    """

    helps: bool
    why: str = ""
    candidates: list[Eviction] = []
    considered: int = 0


class GangState(Said):
    """A Pod's gang: members with a node, members that wait (by name), and whether enough of them fit at once."""

    group: str
    min_member: int = 0
    placed: int = 0
    waiting: list[str] = []
    fits: bool = False
    message: str = ""


class Explanation(msgspec.Struct, omit_defaults=True, rename="camel"):
    """The whole answer. `message` is what a FailedScheduling event would say, "" where some node fits.

    `nodes` are in order: those that fit by total, then the others, those that lack least first. `missing` is what keeps
    the Pod off all nodes, whatever they look like.
    """

    pod: str
    scheduler_name: str
    state: str
    node: str
    message: str
    nodes: list[NodeVerdict]
    priority: int = 0
    missing: list[Obstacle] = []
    preemption: Preemption | None = None
    gang: GangState | None = None
    notes: list[str] = []
