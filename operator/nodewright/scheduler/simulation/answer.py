"""The outcome of a simulation, as it is printed with `-o json|yaml`."""

from __future__ import annotations

from typing import Literal

import msgspec


class Said(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """Base: camelCase, and nothing where there is nothing to say."""


class PodOutcome(Said):
    """One Pod: where it went, or why it waits. `source` and `workload` say what it was made of.

    `victims` were evicted for it; `evicted_by` is the Pod for which it was evicted itself, from `node`.
    """

    pod: str
    source: str
    status: Literal["placed", "pending", "evicted"]
    workload: str = ""
    priority: int = 0
    node: str = ""
    message: str = ""
    victims: list[str] = []
    evicted_by: str = ""


class Evicted(Said):
    """A Pod of the cluster that was evicted by preemption, and for whom."""

    pod: str
    node: str
    by: str
    priority: int = 0
    # Names of the budgets that would be violated.
    violates: list[str] = []


class Use(Said):
    """How much of something is requested, before and after, and how much there is: quantities as text."""

    before: str
    after: str
    allocatable: str


class NodeUse(Said):
    """What is requested at a node. `simulated`: it does not exist."""

    node: str
    pods: Use
    cpu: Use
    memory: Use
    simulated: bool = False


class SimulationResult(Said):
    """All of it. `placed` and `pending` count the Pods that were tried; evicted ones among them count as pending."""

    placed: int
    pending: int
    pods: list[PodOutcome]
    evicted: list[Evicted]
    nodes: list[NodeUse]
    notes: list[str] = []
