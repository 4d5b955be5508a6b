"""The outcome of a simulation as tables for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.markup import escape

from nodewright.cli.output import print_table, stdout
from nodewright.cli.wide import print_sentences, print_text
from nodewright.scheduler.simulation.answer import NodeUse, PodOutcome, SimulationResult, Use

_NAMES = 5


def print_result(result: SimulationResult, limit: int | None) -> None:
    """Print all of it; at most `limit` rows of each table, None for all, and then Pod by Pod."""
    total = result.placed + result.pending
    evicted = len(result.evicted)
    print_text(
        f"{result.placed} of {total} {'pod' if total == 1 else 'pods'} placed, {result.pending} pending"
        f"{f', {evicted} of the cluster evicted' if evicted else ''}"
    )
    for note in result.notes:
        print_text(f"note: {note}", "      ")
    if limit is None:
        _print_pods(result.pods)
    else:
        _print_workloads(result.pods, limit)
    _print_pending(result.pods, limit)
    _print_evicted(result, limit)
    _print_nodes(result.nodes, limit)


def _print_pods(pods: Sequence[PodOutcome]) -> None:
    if pods:
        stdout().print()
        rows = [[escape(p.pod), escape(p.node) or "-", p.status, str(p.priority), escape(p.source)] for p in pods]
        print_table(["pod", "node", "status", "priority", "from"], rows)


def _print_workloads(pods: Sequence[PodOutcome], limit: int) -> None:
    groups: dict[str, list[PodOutcome]] = defaultdict(list)
    for pod in pods:
        groups[pod.workload or f"waiting: {pod.pod}"].append(pod)
    rows = []
    for title, members in list(groups.items())[:limit]:
        counts = Counter(pod.node for pod in members if pod.status == "placed")
        shown = [node if count == 1 else f"{node} ×{count}" for node, count in counts.most_common(_NAMES)]
        more = len(counts) - len(shown)
        nodes = ", ".join(shown) + (f" and {more} more nodes" if more > 0 else "")
        rows.append([title, str(len(members)), str(counts.total()), nodes or "-"])
    if rows:
        stdout().print()
        print_sentences(["pods of", "pods", "placed", "on"], rows)
    if len(groups) > limit:
        print_text(f"and {len(groups) - limit} more (--all shows every pod)")


def _print_pending(pods: Sequence[PodOutcome], limit: int | None) -> None:
    groups: dict[str, list[str]] = defaultdict(list)
    for pod in pods:
        if pod.status != "placed":
            groups[f"evicted for {pod.evicted_by}" if pod.evicted_by else pod.message].append(pod.pod)
    rows = []
    for message, names in list(groups.items())[:limit]:
        more = len(names) - 1
        rows.append([f"{names[0]} and {more} more" if more else names[0], message])
    if rows:
        stdout().print()
        print_sentences(["pending", "why"], rows)
    if limit is not None and len(groups) > limit:
        print_text(f"and {len(groups) - limit} more reasons (--all shows them)")


def _print_evicted(result: SimulationResult, limit: int | None) -> None:
    if not result.evicted:
        return
    rows = [[e.pod, e.node, str(e.priority), ", ".join(e.violates) or "-", e.by] for e in result.evicted[:limit]]
    stdout().print()
    print_sentences(["evicted", "from", "priority", "against budgets", "for"], rows)
    if limit is not None and len(result.evicted) > limit:
        print_text(f"and {len(result.evicted) - limit} more (--all shows them)")


def _print_nodes(nodes: Sequence[NodeUse], limit: int | None) -> None:
    changed = [node for node in nodes if node.pods.before != node.pods.after or node.cpu.before != node.cpu.after]
    shown = nodes if limit is None or len(nodes) <= limit else changed[:limit]
    rows = [
        [escape(n.node) + (" (new)" if n.simulated else ""), _change(n.pods), _change(n.cpu), _change(n.memory)]
        for n in shown
    ]
    if rows:
        stdout().print()
        print_table(["node", "pods", "cpu requested", "memory requested"], rows)
    if len(shown) < len(nodes):
        print_text(f"and {len(nodes) - len(shown)} more nodes, {len(nodes) - len(changed)} of them as before (--all)")


def _change(use: Use) -> str:
    change = use.after if use.before == use.after else f"{use.before} → {use.after}"
    return f"{change} of {use.allocatable}"
