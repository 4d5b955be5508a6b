"""An explanation as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.markup import escape

from nodewright.cli.output import print_table, stdout
from nodewright.cli.wide import print_sentences, print_text
from nodewright.scheduler.explain.answer import Explanation, GangState, NodeVerdict, Preemption

# Heads of the columns of scores; other plugins have their own names there.
SHORT = {
    "TaintToleration": "taints",
    "NodeAffinity": "affinity",
    "NodeResourcesFit": "room",
    "VolumeBinding": "volumes",
    "PodTopologySpread": "spread",
    "InterPodAffinity": "pods",
    "NodeResourcesBalancedAllocation": "balance",
    "ImageLocality": "images",
}
_VICTIMS = 5


def print_explanation(answer: Explanation, limit: int | None) -> None:
    """Print all of it; at most `limit` nodes of each kind, None for all."""
    priority = f", priority {answer.priority}" if answer.priority else ""
    print_text(f"Pod {answer.pod}: {answer.state} (schedulerName {answer.scheduler_name}{priority})")
    if answer.message:
        # In one piece, as in the event, for whoever looks for it; terminals break it.
        stdout().print(answer.message, markup=False)
    for note in answer.notes:
        print_text(f"note: {note}", "      ")
    for obstacle in answer.missing:
        for sentence in obstacle.details:
            print_text(f"{obstacle.plugin}: {sentence}")
    _print_gang(answer.gang)
    fitting = [verdict for verdict in answer.nodes if verdict.fits]
    _print_fitting(fitting, limit)
    # What rules out all nodes has been said.
    rejected = [] if answer.missing else [verdict for verdict in answer.nodes if not verdict.fits]
    _print_rejected(rejected, len(answer.nodes), limit)
    _print_preemption(answer.preemption, limit)


def _print_fitting(verdicts: Sequence[NodeVerdict], limit: int | None) -> None:
    if not verdicts:
        return
    names = list(dict.fromkeys(name for verdict in verdicts for name in verdict.scores))
    rows = []
    for verdict in verdicts[:limit]:
        cells = [verdict.scores.get(name) for name in names]
        scores = ["" if score is None else f"{score.normalized}×{score.weight}" for score in cells]
        rows.append([escape(_name(verdict)), str(verdict.total), *scores])
    stdout().print()
    print_table(["fits on", "total", *(SHORT.get(name, name) for name in names)], rows)
    if limit is not None and len(verdicts) > limit:
        print_text(f"and {len(verdicts) - limit} more nodes with lower or equal totals (--all shows them)")


def _print_rejected(verdicts: Sequence[NodeVerdict], total: int, limit: int | None) -> None:
    if not verdicts:
        return
    rows: list[list[str]] = []
    for verdict in verdicts[:limit]:
        name = _name(verdict)
        if verdict.kept_for:
            rows.append([name, verdict.plugin, f"room is kept for {', '.join(verdict.kept_for)}; beside it:"])
            name = ""
        for obstacle in verdict.missing:
            for sentence in obstacle.sentences:
                rows.append([name, obstacle.plugin, sentence])
                name = ""
    stdout().print()
    print_sentences(["does not fit on", "filter", "what is missing"], rows)
    if limit is not None and len(verdicts) > limit:
        print_text(f"and {len(verdicts) - limit} more nodes that lack as much or more (--all shows them)")
        counts = Counter(reason for verdict in verdicts for reason in verdict.reasons)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        print_text(f"in all {len(verdicts)} of {total} nodes: {reasons}")


def _print_preemption(preemption: Preemption | None, limit: int | None) -> None:
    if preemption is None:
        return
    stdout().print()
    if not preemption.helps:
        print_text(f"Preemption does not help: {preemption.why}")
        return
    candidates = preemption.candidates
    print_text(f"Preemption would evict on {candidates[0].node}, of {len(candidates)} where that helps:")
    if preemption.considered:
        print_text(f"(the scheduler stops at {preemption.considered} such nodes, and may begin with others)")
    rows = []
    for candidate in candidates[:limit]:
        victims = [f"{v.pod} ({v.priority})" for v in candidate.victims]
        shown = ", ".join(victims[: _VICTIMS if limit is not None else None])
        more = len(victims) - _VICTIMS if limit is not None else 0
        budgets = sorted({name for victim in candidate.victims for name in victim.budgets})
        against = f"{candidate.violations} ({', '.join(budgets)})" if candidate.violations else "0"
        mark = " *" if candidate.chosen else ""
        rows.append([f"{candidate.node}{mark}", against, f"{shown} and {more} more" if more > 0 else shown])
    print_sentences(["on", "against budgets", "victims (priority)"], rows)
    if limit is not None and len(candidates) > limit:
        print_text(f"and {len(candidates) - limit} more nodes (--all shows them)")


def _print_gang(gang: GangState | None) -> None:
    if gang is None:
        return
    at_once = f"at least {gang.min_member} at once{'; enough of them fit' if gang.fits else ''}"
    print_text(f"Pod group {gang.group}: {gang.placed} placed, {len(gang.waiting)} waiting, {at_once}")


def _name(verdict: NodeVerdict) -> str:
    bound, nominated = " (bound)" if verdict.bound else "", " (nominated)" if verdict.nominated else ""
    return f"{verdict.node}{bound}{nominated}{' *' if verdict.best else ''}"
