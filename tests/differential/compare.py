"""The comparison of two answers about one Pod, and its words."""

from __future__ import annotations

import difflib
from typing import Any

import yaml

from differential.lab import Verdict
from differential.ours import Answer

# Of plugins that only one side has or logs, a score of 0 says as much as none.
Scores = dict[str, dict[str, int]]
Sources = tuple[tuple[str, Answer], tuple[str, Answer]]


def differences(verdict: Verdict, kept: Answer, fresh: Answer) -> list[str]:
    """How our answers differ from upstream's verdict; empty when they agree."""
    sources = (("the kept picture", kept), ("a fresh picture", fresh))
    if verdict.node:
        return _in_choice(verdict, sources)
    found = [line for source, answer in sources for line in _in_rejection(verdict, source, answer)]
    if not found and fresh.explained != verdict.message:
        found.append(f"upstream says {verdict.message!r}, explain says {fresh.explained!r}")
    return found


def _in_choice(verdict: Verdict, sources: Sources) -> list[str]:
    found = _misread(verdict)
    totals = verdict.trace.totals
    # With a single feasible node upstream does not score.
    feasible = set(totals) or {verdict.node}
    for source, answer in sources:
        if answer.message:
            found.append(f"{source}: upstream chose {verdict.node}, ours says {answer.message!r}")
        elif set(answer.totals) != feasible:
            found.append(f"{source}: feasible upstream {sorted(feasible)}, ours {sorted(answer.totals)}")
        elif totals and answer.totals != totals:
            found.append(f"{source}: totals upstream {_sorted(totals)}, ours {_sorted(answer.totals)}")
        else:
            best = {node for node, total in answer.totals.items() if total == max(answer.totals.values())}
            found += [
                f"{source}: {who} chose {node}, the best are {sorted(best)}"
                for who, node in (("upstream", verdict.node), ("ours", answer.node))
                if node not in best
            ]
    _, fresh = sources[1]
    return found + (_in_plugins(verdict.trace.plugins, fresh.plugins) if totals else [])


def _misread(verdict: Verdict) -> list[str]:
    """Whether the log adds up: if not, it is the harness that has to be mended."""
    trace = verdict.trace
    sums = {node: sum(scores.values()) for node, scores in trace.plugins.items()}
    if sums == trace.totals and trace.feasible == (len(sums) or 1):
        return []
    return [f"the harness does not understand the log: {trace}"]


def _in_rejection(verdict: Verdict, source: str, answer: Answer) -> list[str]:
    if not answer.message:
        return [f"{source}: upstream says {verdict.message!r}, ours fits on {sorted(answer.totals) or answer.node}"]
    theirs, ours = verdict.message, answer.message
    if theirs != ours:
        lines = difflib.ndiff(theirs.split(", "), ours.split(", "))
        kept = "\n  ".join(line.rstrip() for line in lines if not line.startswith("?"))
        return [f"{source}: messages differ (- upstream, + ours)\n  {kept}"]
    if verdict.nominated != answer.nominated:
        return [f"{source}: nominated upstream {verdict.nominated or None}, ours {answer.nominated or None}"]
    victims = sorted(verdict.trace.victims)
    if victims != answer.victims:
        return [f"{source}: victims on {verdict.nominated} upstream {victims}, ours {answer.victims}"]
    return []


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
    plugins = dict(sorted(verdict.trace.plugins.items()))
    return "\n".join(
        [
            "our scheduler and kube-scheduler disagree",
            *(f"* {line}" for line in found),
            f"\n--- nodes\n{_yaml(nodes)}",
            f"--- Pods with a node\n{_yaml(pods)}",
            f"--- the Pod\n{_yaml(pod)}",
            f"--- upstream: node {verdict.node or None}, {verdict.message or plugins}",
            f"    nominated to {verdict.nominated or None}, victims {verdict.trace.victims}",
            f"--- ours: {fresh.message or dict(sorted(fresh.plugins.items()))}",
            f"    nominated to {fresh.nominated or None}, victims {fresh.victims}",
        ]
    )


def _yaml(objects: Any) -> str:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    return yaml.dump(objects, Dumper=Dumper, default_flow_style=None, sort_keys=False, width=160)
