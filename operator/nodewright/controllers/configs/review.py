"""What one object does not show: whether it agrees with the others, and what became of it on the nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nodewright.kube.api.meta import Condition
from nodewright.kube.api.nodeconfigs import InvalidConfig, NodeAgentConfig, fields, precedence, selects
from nodewright.kube.conditions import set_condition

Json = dict[str, Any]
Labels = Mapping[str, Mapping[str, str]]
"""Labels of all Nodes, by name."""

_NAMED = 3
"""So many nodes or fields are named in a message; the rest is counted."""
_NODE_CONDITIONS = ("Applied", "ProxyApplied")


class Verdict(msgspec.Struct, frozen=True):
    """A condition that an object should have. `value` is True, False or Unknown."""

    value: str
    reason: str
    message: str


class Review(msgspec.Struct, frozen=True):
    """What the operator says about an object."""

    accepted: Verdict
    applied: Verdict
    selected: int
    """Nodes that it selects."""
    done: int
    """Those of them that applied this generation."""


def node_configs(objects: Sequence[NodeAgentConfig], nodes: Labels) -> dict[str, Review]:
    """Review NodeAgentConfigs that are not being deleted; gives the reviews by name."""
    ordered = sorted(objects, key=precedence)
    meant = {obj.metadata.name: {name for name, own in nodes.items() if selects(obj, own)} for obj in ordered}
    reviews: dict[str, Review] = {}
    seen: list[tuple[NodeAgentConfig, Json]] = []
    for obj in ordered:
        name = obj.metadata.name
        try:
            own = fields(obj)
        except InvalidConfig as error:
            accepted = Verdict("False", "Invalid", str(error))
        else:
            accepted = _agreement(obj, own, seen, meant)
            seen.append((obj, own))
        applied, done = _progress(obj, meant[name])
        reviews[name] = Review(accepted, applied, len(meant[name]), done)
    return reviews


def _agreement(
    obj: NodeAgentConfig, own: Json, before: Sequence[tuple[NodeAgentConfig, Json]], meant: Mapping[str, set[str]]
) -> Verdict:
    """Tell whether objects of the same priority say something else to the same nodes; those go first by age or name.

    Objects of different priorities may contradict each other: that is what priorities are for.
    """
    found: list[str] = []
    for other, theirs in before:
        if other.priority != obj.priority:
            continue
        common = meant[other.metadata.name] & meant[obj.metadata.name]
        differing = sorted(field for field in own.keys() & theirs.keys() if own[field] != theirs[field])
        if common and differing:
            found.append(f"{', '.join(differing)} of {other.metadata.name} (on {_named(common)})")
    if not found:
        return Verdict("True", "Valid", "")
    text = f"objects of the same priority that are older or come first by name win: {_listed(found)}"
    return Verdict("False", "Conflict", f"{text}; give one of them another priority")


def _progress(obj: NodeAgentConfig, selected: set[str]) -> tuple[Verdict, int]:
    """Sum up the nodes' entries: the verdict, and how many nodes applied this generation."""
    generation = obj.metadata.generation
    entries = {entry.name: entry for entry in obj.status.nodes}
    waiting: set[str] = set()
    failed: dict[str, str] = {}
    for name in selected:
        conditions = [c for c in entries[name].conditions if c.type in _NODE_CONDITIONS] if name in entries else []
        wrong = [c for c in conditions if c.observed_generation == generation and c.status == "False"]
        if wrong:
            failed[name] = f"{wrong[0].reason}: {wrong[0].message}"
        elif not conditions or any(c.observed_generation != generation for c in conditions):
            waiting.add(name)
    done = len(selected) - len(waiting) - len(failed)
    if not selected:
        return Verdict("True", "NoNodes", "selects no node"), 0
    text = f"{done} of {len(selected)} nodes"
    if waiting:
        text += f"; no word from {_named(waiting)}"
    if failed:
        first = min(failed)
        return Verdict("False", "NotAppliedEverywhere", f"{text}; not on {_named(set(failed))} ({failed[first]})"), done
    if waiting:
        return Verdict("Unknown", "Waiting", text), done
    return Verdict("True", "Applied", text), done


def status_patch(obj: NodeAgentConfig, review: Review, now: str) -> Json | None:
    """What to apply to the status subresource (server-side), or None when the object says it already.

    Only the operator's own fields: the entries of the nodes belong to them.
    """
    old = obj.status
    conditions = [msgspec.structs.replace(c) for c in old.conditions if c.type in ("Accepted", "Applied")]
    changed = False
    for kind, verdict in (("Accepted", review.accepted), ("Applied", review.applied)):
        changed |= set_condition(
            conditions, kind, verdict.value, verdict.reason, verdict.message, obj.metadata.generation, now
        )
    counts = (obj.metadata.generation, review.selected, review.done)
    if not changed and counts == (old.observed_generation, old.selected, old.applied):
        return None
    return {
        "apiVersion": obj.API_VERSION,
        "kind": obj.KIND,
        # with the UID it is refused when another object of this name has taken its place
        "metadata": {"name": obj.metadata.name, "uid": obj.metadata.uid},
        "status": {
            "observedGeneration": obj.metadata.generation,
            "selected": review.selected,
            "applied": review.done,
            "conditions": [_complete(condition) for condition in conditions],
        },
    }


def prune(obj: NodeAgentConfig, nodes: Labels) -> Json | None:
    """A merge patch for the status without the entries of Nodes that do not exist, or None when there are none.

    Merge patches replace lists whole; the resourceVersion keeps what nodes wrote meanwhile from getting lost.
    """
    kept = [entry for entry in obj.status.nodes if entry.name in nodes]
    if len(kept) == len(obj.status.nodes):
        return None
    return {
        "metadata": {"resourceVersion": obj.metadata.resource_version},
        "status": {"nodes": msgspec.to_builtins(kept)},
    }


def _complete(condition: Condition) -> Json:
    """Give a condition with all its fields: the schema wants the message also where it is empty."""
    return {"reason": "", "message": "", **msgspec.to_builtins(condition)}


def _named(names: set[str]) -> str:
    return _listed(sorted(names))


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")
