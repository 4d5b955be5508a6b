"""The explanation of a DaemonSet as tables for people: nodes in the same situation share a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodewright.cli.output import stdout
from nodewright.cli.wide import print_sentences, print_text
from nodewright.controllers.daemonset.explain import Action, Explanation, NodeLine
from nodewright.controllers.daemonset.waits import named


def print_explanation(answer: Explanation, each: bool) -> None:
    """Print all of it; with `each`, a row for every node and every action."""
    paused = ", paused" if answer.paused else ""
    revision = f"revision {answer.number} ({answer.revision})"
    print_text(f"DaemonSet {answer.daemonset} ({answer.api_version}): {answer.strategy}{paused}, {revision}")
    counts = f"{answer.updated} of {answer.desired} nodes have a pod of the current template"
    print_text(f"{counts}; {answer.available} have an available pod{'' if answer.waits else '; nothing is waited for'}")
    for note in answer.notes:
        print_text(f"note: {note}", "      ")
    for wait in answer.waits:
        print_text(f"waits: {wait.message}", "       ")
    if answer.next:
        stdout().print()
        rows = [[a.action, a.node, a.pod, a.why] for a in answer.next] if each else _actions(answer.next)
        columns = ["next", "node", "pod", "why"] if each else ["next", "nodes", "on", "why"]
        print_sentences(columns, rows)
    if answer.nodes:
        stdout().print()
        if each:
            print_sentences(["node", "pod", "why"], (row for line in answer.nodes for row in _node(line)))
        else:
            print_sentences(["nodes", "which", "why"], _groups(answer.nodes))


def _actions(actions: Sequence[Action]) -> list[list[str]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for action in actions:
        groups.setdefault((action.action, action.why), []).append(action.node)
    return [[what, str(len(nodes)), named(nodes), why] for (what, why), nodes in groups.items()]


def _groups(lines: Iterable[NodeLine]) -> list[list[str]]:
    """Nodes that should run a pod first; within these, the largest group first."""
    groups: dict[tuple[bool, str], list[NodeLine]] = {}
    for line in lines:
        groups.setdefault((not line.should_run, line.reason), []).append(line)
    rows = []
    for (_, reason), members in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1])):
        messages = {pod.message for line in members for pod in line.pods if pod.message}
        why = f"{reason}: {messages.pop()}" if len(messages) == 1 else reason
        rows.append([str(len(members)), named([line.node for line in members]), why])
    return rows


def _node(line: NodeLine) -> list[list[str]]:
    if not line.pods:
        return [[line.node, "", line.reason]]
    rows: list[list[str]] = []
    for pod in line.pods:
        why = line.reason if len(line.pods) == 1 else f"{pod.template}, {pod.state}"
        rows.append([line.node if not rows else "", pod.name, f"{why}: {pod.message}" if pod.message else why])
    return rows
