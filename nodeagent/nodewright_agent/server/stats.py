"""/stats/summary and /metrics/resource, with the numbers that the kernel gives and no others. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from nodewright.kube import times
from nodewright_agent.server.view import NodeUsage, Usage


def _time(seconds: float) -> str:
    return times.format_rfc3339(datetime.fromtimestamp(seconds, UTC))


def _usage(usage: Usage, time: float) -> dict[str, Any]:
    stats: dict[str, Any] = {}
    if usage.started_at is not None:
        stats["startTime"] = _time(usage.started_at)
    if usage.cpu_nanoseconds is not None:
        stats["cpu"] = {"time": _time(time), "usageCoreNanoSeconds": usage.cpu_nanoseconds}
    memory = {
        "usageBytes": usage.memory_usage_bytes,
        "workingSetBytes": usage.memory_working_set_bytes,
        "rssBytes": usage.memory_rss_bytes,
    }
    if known := {name: value for name, value in memory.items() if value is not None}:
        stats["memory"] = {"time": _time(time), **known}
    return stats


def summary(node_name: str, usage: NodeUsage) -> dict[str, Any]:
    """Build a Summary (stats/v1alpha1); what is not measured is left out."""
    pods = []
    for pod in usage.pods:
        reference = {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}
        containers = [{"name": each.name, **_usage(each.usage, usage.time)} for each in pod.containers]
        pods.append({"podRef": reference, **_usage(pod.usage, usage.time), "containers": containers})
    return {"node": {"nodeName": node_name, **_usage(usage.usage, usage.time)}, "pods": pods}


_RESOURCE_METRICS = (
    # name, help, kind, scopes in which it exists
    ("cpu_usage_seconds_total", "Cumulative cpu time consumed by the {0} in core-seconds", "counter"),
    ("memory_working_set_bytes", "Current working set of the {0} in bytes", "gauge"),
)


def _value(metric: str, usage: Usage) -> str | None:
    if metric == "cpu_usage_seconds_total":
        return None if usage.cpu_nanoseconds is None else f"{usage.cpu_nanoseconds / 1e9:.9f}"
    return None if usage.memory_working_set_bytes is None else str(usage.memory_working_set_bytes)


def resource_metrics(usage: NodeUsage | None) -> str:
    """Write the text of /metrics/resource, which metrics-server reads; None means that usage could not be read."""
    lines: list[str] = []
    if usage is not None:
        stamp = int(usage.time * 1000)
        samples: dict[str, list[tuple[str, Usage]]] = {"node": [("", usage.usage)], "pod": [], "container": []}
        for pod in usage.pods:
            where = f'namespace="{_escape(pod.namespace)}",pod="{_escape(pod.name)}"'
            samples["pod"].append((f"{{{where}}}", pod.usage))
            for each in pod.containers:
                samples["container"].append((f'{{container="{_escape(each.name)}",{where}}}', each.usage))
        for scope, entries in samples.items():
            for metric, text, kind in _RESOURCE_METRICS:
                values = [(labels, value) for labels, u in entries if (value := _value(metric, u)) is not None]
                lines += _family(f"{scope}_{metric}", text.format(scope), kind, values, stamp)
        started = [(labels, f"{u.started_at:.3f}") for labels, u in samples["container"] if u.started_at is not None]
        about = "Start time of the container since unix epoch in seconds"
        lines += _family("container_start_time_seconds", about, "gauge", started, None)
    failed = [("", "0" if usage is not None else "1")]
    about = "1 if there was an error while getting container metrics, 0 otherwise"
    lines += _family("resource_scrape_error", about, "gauge", failed, None)
    return "\n".join(lines) + "\n"


def _family(name: str, about: str, kind: str, values: list[tuple[str, str]], stamp: int | None) -> list[str]:
    if not values:
        return []
    tail = "" if stamp is None else f" {stamp}"
    head = [f"# HELP {name} [STABLE] {about}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{labels} {value}{tail}" for labels, value in values]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
