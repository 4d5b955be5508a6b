"""Why a Pod fits nowhere, counted and worded as kube-scheduler does."""

from __future__ import annotations

from collections import Counter

import msgspec

NO_NODES = "no nodes available to schedule pods"
NOTE_LIMIT = 1024


class Diagnosis(msgspec.Struct):
    """The outcome of a cycle without a feasible node.

    `reasons` counts nodes per reason; a node counts for each of its reasons. `plugins` rejected at least one node and
    decide which events wake the Pod.
    """

    node_count: int
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    plugins: set[str] = msgspec.field(default_factory=set)
    prefilter_message: str = ""
    postfilter_message: str = ""
    # Takes the place of the whole message: what keeps the Pod waiting is not the nodes.
    instead: str = ""

    def message(self) -> str:
        """Upstream's FitError: `0/5 nodes are available: 3 Insufficient cpu, 5 Too many pods.`"""
        if self.instead:
            return self.instead
        if not self.node_count:
            return NO_NODES
        text = f"0/{self.node_count} nodes are available:"
        if self.prefilter_message:
            text += f" {self.prefilter_message}."
        elif self.reasons:
            # Sorted as strings, so "10 x" comes before "2 y": scripts compare these messages.
            text += f" {', '.join(sorted(f'{count} {reason}' for reason, count in self.reasons.items()))}."
        if self.postfilter_message:
            text += f" {self.postfilter_message}"
        return text


def truncate_note(note: str) -> str:
    """A message cut to what the API takes as the note of an event, in bytes, with an ellipsis."""
    raw = note.encode()
    if len(raw) <= NOTE_LIMIT:
        return note
    suffix = " ..."
    return raw[: NOTE_LIMIT - len(suffix)].decode(errors="ignore") + suffix
