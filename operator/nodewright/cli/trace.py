"""`nodewright trace pod NS/NAME`: an object's way through the system, step by step, with times and who did each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from nodewright.cli.options import DEFAULT, Name, Output, StateDir, existing_layout
from nodewright.cli.output import FAILED, USAGE, CliError, Format, emit, print_table
from nodewright.cli.tracesteps import Step, owner_steps, pod_steps, sorted_steps, when
from nodewright.controlplane.layout import Layout

KINDS = {"pod": "pods", "pods": "pods", "po": "pods"}


def command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What is traced: pod.")],
    target: Annotated[str, typer.Argument(metavar="NS/NAME", help="Which one; without NS/ in namespace default.")],
    name: Name = DEFAULT,
    state_dir: StateDir = None,
    output: Output = Format.TABLE,
) -> None:
    """Follow an object through the system: each step with its time and who did it.

    Reads what the parts of a local cluster wrote down: the audit log, the operator's log, the agents' traces.
    """
    if kind not in KINDS:
        raise CliError(f"cannot trace a {kind}", "known kinds: pod", USAGE)
    namespace, _, pod_name = target.rpartition("/")
    layout = existing_layout(name, state_dir)
    pod = _get_pod(layout, namespace or "default", pod_name)
    steps = trace_pod(layout, pod)
    if not steps:
        raise CliError(f"nothing is known about pod {target}", f"is its audit log gone? {layout.audit_log}")
    if output is Format.TABLE:
        _print(steps)
    else:
        emit(steps, output)


def trace_pod(layout: Layout, pod: dict[str, Any]) -> list[Step]:
    """Gather the steps of `pod` and, where a DaemonSet made it, of that too."""
    meta = pod["metadata"]
    owners = [o for o in meta.get("ownerReferences", []) if o.get("controller") and o["kind"] == "DaemonSet"]
    words = [meta["name"].encode(), b'"create"', *(o["name"].encode() for o in owners)]
    audit = list(_json_lines(_rotated(layout.audit_log), words))
    agent = list(_json_lines([layout.node(pod["spec"].get("nodeName", "-")) / "trace" / f"{meta['uid']}.jsonl"], []))
    steps = pod_steps(pod, audit, agent, owned=bool(owners))
    for owner in owners:
        key = f"{meta['namespace']}/{owner['name']}"
        before = next((s.time for s in steps if s.step == "Pod created"), f"{meta['creationTimestamp']}")
        log = _json_lines([layout.log("operator")], [b'"observed"'])
        steps = owner_steps("daemonsets", key, audit, log, before) + steps
    return sorted_steps(steps)


def _get_pod(layout: Layout, namespace: str, name: str) -> dict[str, Any]:
    import asyncio

    from nodewright.kube.client import Client
    from nodewright.kube.config import load
    from nodewright.kube.errors import NotFound
    from nodewright.kube.resources import PODS

    async def get() -> dict[str, Any]:
        async with Client(load(layout.kubeconfig("admin"))) as client:
            pod: dict[str, Any] = await client.get(PODS, name, namespace)
            return pod

    try:
        return asyncio.run(get())
    except NotFound as error:
        raise CliError(error.message, "nodewright kubectl get pods -A lists them", FAILED) from None


def _rotated(path: Path) -> list[Path]:
    """The log and the older parts that kube-apiserver has set aside, oldest first."""
    return [*sorted(path.parent.glob(f"{path.stem}-*{path.suffix}")), path]


def _json_lines(paths: list[Path], words: list[bytes]) -> Iterator[dict[str, Any]]:
    """Decode the lines that hold one of `words` (any line without words); what is no JSON object is passed over."""
    for path in paths:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            for line in file:
                if words and not any(word in line for word in words):
                    continue
                try:
                    entry = msgspec.json.decode(line)
                except msgspec.DecodeError:
                    continue  # the last line may be half written
                if isinstance(entry, dict):
                    yield entry


def _print(steps: list[Step]) -> None:
    start = when(steps[0].time)
    previous = start
    rows = []
    for number, step in enumerate(steps):
        at = when(step.time)
        total, delta = (at - start).total_seconds() * 1000, (at - previous).total_seconds() * 1000
        clock = at.strftime("%H:%M:%S.%f")[:-3]
        rows.append([str(number), clock, f"{total:.0f} ms", f"+{delta:.0f}", step.step, step.detail, step.by])
        previous = at
    print_table(["#", "time", "since start", "ms", "step", "what", "by"], rows)
