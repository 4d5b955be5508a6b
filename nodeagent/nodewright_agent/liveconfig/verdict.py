"""What a node says about an object in its status: one entry, with an Applied condition and its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nodewright.kube.api.meta import Condition
from nodewright.kube.api.nodeconfigs import NodeEntry
from nodewright_agent.liveconfig.merge import Merged

APPLIED = "Applied"
PROXY_APPLIED = "ProxyApplied"
"""The proxy's condition where an agent in another process writes `Applied` of the same node."""
_LONGEST = 1024


class ProxyFacts(NamedTuple):
    """What the service proxy does now."""

    mode: str = ""
    reason: str = ""
    scheduler: str = ""


class Report(NamedTuple):
    """What a process knows about how its settings went."""

    concerned: frozenset[str]
    """Fields that this process obeys."""
    elsewhere: Mapping[str, str] = {}
    """Fields that another process obeys, or that mean nothing on this node: with who or why."""
    problems: Mapping[str, str] = {}
    """Fields that could not be applied, with the reason."""
    proxy: ProxyFacts | None = None
    """None: this process runs no proxy."""


class Outcome(NamedTuple):
    """A condition without its times."""

    status: str
    reason: str
    message: str


def outcome(name: str, merged: Merged, report: Report) -> Outcome:
    """Judge what became of an object that selects this node."""
    if name in merged.invalid:
        return Outcome("False", "Invalid", f"left out: {merged.invalid[name]}")
    own = merged.selected[name]
    won = {field for field in own if merged.settings[field].source == name}
    notes = [
        f"{field}: {merged.settings[field].source} has precedence"
        for field in sorted(own - won - set(report.elsewhere))
    ]
    for who in sorted({report.elsewhere[field] for field in own if field in report.elsewhere}):
        listed = ", ".join(sorted(field for field in own if report.elsewhere.get(field) == who))
        notes.append(f"{listed}: {who}")
    failed = [f"{field}: {report.problems[field]}" for field in sorted(won) if field in report.problems]
    unsupported = sorted(won - report.concerned - set(report.elsewhere))
    if unsupported:
        failed.append(f"not supported by this version of the agent: {', '.join(unsupported)}")
    text = "; ".join([*failed, *notes])[:_LONGEST]
    if failed:
        broken = [field for field in sorted(won) if field in report.problems]
        return Outcome("False", "NotPossible" if broken else "UnsupportedFields", text)
    here = own - set(report.elsewhere)
    if own and not here:
        return Outcome("True", "ServedElsewhere", text)
    if here and not here & won:
        return Outcome("True", "Overridden", text)
    return Outcome("True", "Applied", text)


def entry(
    node: str, generation: int, found: Outcome, report: Report, before: NodeEntry | None, now: str, condition: str
) -> NodeEntry:
    """Build a node's entry. lastTransitionTime stays where the status does; `before` is what the object has now.

    observedGeneration belongs to whoever writes `Applied`; each condition has its own besides.
    """
    earlier = next((one for one in before.conditions if one.type == condition), None) if before is not None else None
    kept = earlier.last_transition_time if earlier is not None and earlier.status == found.status else None
    judged = Condition(condition, found.status, found.reason, found.message, kept or now, generation)
    proxy = report.proxy or ProxyFacts()
    return NodeEntry(
        name=node,
        observed_generation=generation if condition == APPLIED else 0,
        proxy_mode=proxy.mode,
        proxy_reason=proxy.reason[:_LONGEST],
        ipvs_scheduler=proxy.scheduler,
        conditions=[judged],
    )


def own_part(whole: NodeEntry, condition: str, *, proxy: bool) -> NodeEntry:
    """Give the part of an entry that a process writes, to compare it with what it would write."""
    return NodeEntry(
        name=whole.name,
        observed_generation=whole.observed_generation if condition == APPLIED else 0,
        proxy_mode=whole.proxy_mode if proxy else "",
        proxy_reason=whole.proxy_reason if proxy else "",
        ipvs_scheduler=whole.ipvs_scheduler if proxy else "",
        conditions=[one for one in whole.conditions if one.type == condition],
    )
