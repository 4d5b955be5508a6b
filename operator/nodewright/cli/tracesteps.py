"""The steps of an object's way through the system, put together from what each part wrote down. Pure: no I/O.

* kube-apiserver's audit log: when a write was received, when it was stored, and by whom.
* the operator's log: when a controller saw the object (the record ``observed``).
* the node agent's trace of the Pod: what happened on the node.

All of these carry wall-clock times of one machine, in milliseconds or better, so they can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

Record = dict[str, Any]


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step: when (RFC 3339), what, and which part of the system did it."""

    time: str
    step: str
    by: str
    detail: str = ""


def when(text: str) -> datetime:
    """Parse an RFC 3339 time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def owner_steps(kind: str, key: str, audit: Iterable[Record], log: Iterable[Record], before: str) -> list[Step]:
    """Steps of the owner, up to the creation of its Pod at ``before``: accepted, stored, seen by the controller.

    Of several writes (a template is changed now and then) the last one that precedes the Pod counts.
    """
    namespace, _, name = key.rpartition("/")
    writes = [
        record
        for record in audit
        if _is(record, kind, namespace, name, "") and record["verb"] in ("create", "update", "patch")
        if _succeeded(record) and not _is_component(record) and when(record["requestReceivedTimestamp"]) <= when(before)
    ]
    if not writes:
        return []
    write = writes[-1]
    steps = _accepted_and_stored(write, f"{_singular(kind)} {name}")
    seen = [
        entry
        for entry in log
        if entry.get("message") == "observed" and entry.get("object") == name and entry.get("namespace") == namespace
        if when(write["requestReceivedTimestamp"]) <= when(entry["time"]) <= when(before)
    ]
    if seen:
        detail = f"generation {seen[0]['generation']}" if "generation" in seen[0] else ""
        steps.append(Step(seen[0]["time"], "seen by the controller", seen[0].get("controller", "operator"), detail))
    return steps


def pod_steps(pod: Record, audit: Iterable[Record], agent: Iterable[Record], *, owned: bool) -> list[Step]:
    """Steps of the Pod itself: created, scheduled, seen by the agent, image, sandbox, started, status written."""
    meta = pod["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    records = list(audit)
    steps: list[Step] = []
    created = _creation(records, meta)
    if created is not None:
        if owned:
            steps.append(Step(created["stageTimestamp"], "Pod created", _user(created), name))
        else:
            steps += _accepted_and_stored(created, f"Pod {name}")
    bound = [r for r in records if _is(r, "pods", namespace, name, "binding") and _succeeded(r)]
    if bound:
        steps.append(Step(bound[0]["stageTimestamp"], "scheduled", _user(bound[0]), pod["spec"].get("nodeName", "")))
    steps += agent_steps(agent)
    written = status_written(records, namespace, name, steps)
    if written is not None:
        steps.append(written)
    return steps


def agent_steps(lines: Iterable[Record]) -> list[Step]:
    """The agent's own lines in the words of the trace, up to the first start of every container."""
    return [_agent_step(line) for line in lines]


# What an agent writes begins with one of these; the rest of its line is the detail (a container's name).
_AGENT_STEPS = ("seen by the agent", "sandbox ready", "image ready", "container created", "container started")


def _agent_step(line: Record) -> Step:
    text = line["step"]
    step = next((known for known in _AGENT_STEPS if text.startswith(known)), text)
    return Step(line["time"], step, line["by"], text.removeprefix(step).strip())


def status_written(records: list[Record], namespace: str, name: str, steps: list[Step]) -> Step | None:
    """The first status write by the node after the last container was started: the one that says Running."""
    started = [step.time for step in steps if step.step == "container started"]
    if not started:
        return None
    last = max(when(time) for time in started)
    for record in records:
        is_ours = _is(record, "pods", namespace, name, "status") and _user(record).startswith("system:node:")
        if is_ours and _succeeded(record) and when(record["stageTimestamp"]) >= last:
            return Step(record["stageTimestamp"], "status Running written", _user(record))
    return None


# The audit log has the moment when a write was answered. Watchers may have seen and acted on it a little earlier.
_ANSWERED = {"stored", "Pod created", "scheduled"}


def sorted_steps(steps: Iterable[Step]) -> list[Step]:
    """Order by time, where ``steps`` come in the order of cause and effect: a write is no later than what it led to."""
    ordered: list[Step] = []
    for step in reversed(list(steps)):
        if step.step in _ANSWERED and ordered and when(ordered[0].time) < when(step.time):
            step = msgspec.structs.replace(step, time=ordered[0].time)
        ordered.insert(0, step)
    return sorted(ordered, key=lambda step: when(step.time))


def _accepted_and_stored(write: Record, what: str) -> list[Step]:
    who = f"kube-apiserver, for {_user(write)}"
    return [
        Step(write["requestReceivedTimestamp"], "accepted by the API server", who, what),
        Step(write["stageTimestamp"], "stored", "kube-apiserver, etcd", what),
    ]


def _creation(records: list[Record], meta: Record) -> Record | None:
    """The write that made the Pod. With generateName the audit log has no name: then the nearest in time is it."""
    namespace, name = meta["namespace"], meta["name"]
    creations = [r for r in records if r["verb"] == "create" and _succeeded(r) and _in(r, "pods", namespace, "")]
    named = [r for r in creations if r["objectRef"].get("name") == name]
    if named:
        return named[0]
    stamp = when(meta["creationTimestamp"])
    unnamed = [r for r in creations if not r["objectRef"].get("name")]
    # creationTimestamp is cut to whole seconds
    near = [r for r in unnamed if -0.1 <= (when(r["stageTimestamp"]) - stamp).total_seconds() <= 1.1]
    return near[0] if near else None


def _is(record: Record, resource: str, namespace: str, name: str, subresource: str) -> bool:
    return _in(record, resource, namespace, subresource) and record["objectRef"].get("name") == name


def _in(record: Record, resource: str, namespace: str, subresource: str) -> bool:
    reference = record.get("objectRef") or {}
    return (
        reference.get("resource") == resource
        and reference.get("namespace", "") == namespace
        and reference.get("subresource", "") == subresource
    )


def _succeeded(record: Record) -> bool:
    return record.get("stage") == "ResponseComplete" and 200 <= record.get("responseStatus", {}).get("code", 0) < 300


def _user(record: Record) -> str:
    return str(record.get("user", {}).get("username", "unknown"))


def _is_component(record: Record) -> bool:
    return _user(record).startswith("system:")


def _singular(plural: str) -> str:
    return {"daemonsets": "DaemonSet", "pods": "Pod"}.get(plural, plural)
