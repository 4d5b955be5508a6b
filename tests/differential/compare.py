"""The comparison of two answers about one Pod, and its words."""

from __future__ import annotations

import difflib
from typing import Any

import yaml
from differential.lab import Verdict
from differential.ours import Answer
# Of plugins that only one side has or logs, a score of 0 says as much as none.
Scores = dict[str, dict[str, int]]


def differences(verdict: Verdict, kept: Answer, fresh: Answer) -> list[str]:
    """How our answers differ from upstream's verdict; empty when they agree."""
    if not verdict.node:
        return _in_messages(verdict, "the kept picture", kept) + _in_messages(verdict, "a fresh picture", fresh)
    found = []
    # With a single feasible node upstream does not score.
    totals = verdict.trace.totals
    feasible = set(totals) or {verdict.node}
    if len(feasible) != verdict.trace.feasible:
        found.append(f"the harness misread the log: {verdict.trace}")
    for source, answer in ("the kept picture", kept), ("a fresh picture", fresh):
        if answer.message:
            found.append(f"{source}: upstream chose {verdict.node}, ours says {answer.message!r}")
        elif answer.totals and set(answer.totals) != feasible:
            found.append(f"{source}: feasible upstream {sorted(feasible)}, ours {sorted(answer.totals)}")
        elif answer.totals and totals and answer.totals != totals:
            found.append(f"{source}: totals upstream {_sorted(totals)}, ours {_sorted(answer.totals)}")
    if not found and totals:
        found += _in_plugins(verdict.trace.plugins, fresh.plugins)
    if not found:
        best = {node for node, total in fresh.totals.items() if total == max(fresh.totals.values())}
        for who, node in ("upstream", verdict.node), ("ours", kept.node):
            if node not in best:
                found.append(f"{who} chose {node}, the best are {sorted(best)}")
    return found


def _in_messages(verdict: Verdict, source: str, answer: Answer) -> list[str]:
    if not answer.message:
        return [f"{source}: upstream says {verdict.message!r}, ours fits on {sorted(answer.totals) or answer.node}"]
    theirs, ours = verdict.message, answer.message
    if theirs == ours:
        return []
    lines = difflib.ndiff(theirs.split(", "), ours.split(", "))
    return [
        f"{source}: messages differ (- upstream, + ours)\n  " + "\n  ".join(line.rstrip() for line in lines if line[0] != "?")
    ]


def _in_plugins(theirs: Scores, ours: Scores) -> list[str]:
    found = []
    for node in sorted(theirs):
        for plugin in sorted({*theirs[node], *ours.get(node, {})}):
            their, our = theirs[node].get(plugin, 0), ours.get(node, {}).get(plugin, 0)
            if their != our:
                found.append(f"{plugin} of {node}: upstream {their}, ours {our}")
    return found


def _sorted(totals: dict[str, int]) -> dict[str, int]:
    return dict(sorted(totals.items()))


def report(found: list[str], nodes: list[Any], pods: list[Any], pod: Any, verdict: Verdict, fresh: Answer) -> str:
    """All that is needed to understand a difference, and to make it again."""
    plugins = dict(sorted(verdict.trace.plugins.items())) if verdict.trace else {}
    return "\n".join(
        [
            "our scheduler and kube-scheduler disagree",
            *(f"* {line}" for line in found),
            f"\n--- nodes\n{_yaml(nodes)}",
            f"--- Pods with a node\n{_yaml(pods)}",
            f"--- the Pod\n{_yaml(pod)}",
            f"--- upstream: node {verdict.node or None}, {verdict.message or plugins}",
            f"--- ours: {fresh.message or dict(sorted(fresh.plugins.items()))}",
        ]
    )


def _yaml(objects: Any) -> str:
    return yaml.safe_dump(objects, default_flow_style=None, sort_keys=False, width=160)
