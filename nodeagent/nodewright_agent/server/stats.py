"""/stats/summary and /metrics/resource, with the numbers that the kernel gives and no others. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from nodewright.kube import times
from nodewright_agent.server.exposition import family, labels, seconds
from nodewright_agent.usage.model import (
    ContainerUsage,
    FsUsage,
    Interface,
    NodeUsage,
    PodUsage,
    Pressure,
    Stall,
    Usage,
)

_MAIN_INTERFACE = "eth0"
"""Whose counters upstream shows besides the list of all."""


def _time(at: float) -> str:
    return times.format_rfc3339(datetime.fromtimestamp(at, UTC))


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _usage(usage: Usage, time: float) -> dict[str, Any]:
    stats: dict[str, Any] = {}
    if usage.started_at is not None:
        stats["startTime"] = _time(usage.started_at)
    cpu = {"usageNanoCores": usage.cpu_nanocores, "usageCoreNanoSeconds": usage.cpu_nanoseconds}
    memory = {
        "availableBytes": usage.memory_available_bytes,
        "usageBytes": usage.memory_usage_bytes,
        "workingSetBytes": usage.memory_working_set_bytes,
        "rssBytes": usage.memory_rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    }
    swap = {"swapAvailableBytes": usage.swap_available_bytes, "swapUsageBytes": usage.swap_usage_bytes}
    for name, values, pressure in (
        ("cpu", cpu, usage.cpu_pressure),
        ("memory", memory, usage.memory_pressure),
        ("io", {}, usage.io_pressure),
        ("swap", swap, None),
    ):
        known = _known(values) | ({"psi": _psi(pressure)} if pressure is not None else {})
        if known:
            stats[name] = {"time": _time(time), **known}
    return stats


def _psi(pressure: Pressure) -> dict[str, Any]:
    def stall(one: Stall) -> dict[str, Any]:
        return {"total": one.total, "avg10": one.avg10, "avg60": one.avg60, "avg300": one.avg300}

    return {"full": stall(pressure.full), "some": stall(pressure.some)}


def _fs(fs: FsUsage) -> dict[str, Any]:
    return _known(
        {
            "time": _time(fs.time),
            "availableBytes": fs.available,
            "capacityBytes": fs.capacity,
            "usedBytes": fs.used,
            "inodesFree": fs.inodes_free,
            "inodes": fs.inodes,
            "inodesUsed": fs.inodes_used,
        }
    )


def _network(interfaces: Iterable[Interface], time: float) -> dict[str, Any]:
    every = [
        {
            "name": one.name,
            "rxBytes": one.rx_bytes,
            "rxErrors": one.rx_errors,
            "txBytes": one.tx_bytes,
            "txErrors": one.tx_errors,
        }
        for one in interfaces
    ]
    main: dict[str, Any] = next((one for one in every if one["name"] == _MAIN_INTERFACE), {"name": ""})
    return {"time": _time(time), **main, "interfaces": every}


def _container(one: ContainerUsage, time: float) -> dict[str, Any]:
    stats = {"name": one.name, **_usage(one.usage, time)}
    for name, fs in (("rootfs", one.rootfs), ("logs", one.logs)):
        if fs is not None:
            stats[name] = _fs(fs)
    return stats


def _pod(pod: PodUsage, time: float) -> dict[str, Any]:
    stats: dict[str, Any] = {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        **_usage(pod.usage, time),
        "containers": [_container(each, time) for each in pod.containers],
    }
    if pod.network is not None:
        stats["network"] = _network(pod.network, time)
    if pod.volumes:
        stats["volume"] = []
        for volume in pod.volumes:
            claim = {"pvcRef": {"name": volume.claim, "namespace": pod.namespace}} if volume.claim else {}
            stats["volume"].append({**_fs(volume.fs), "name": volume.name, **claim})
    if pod.ephemeral is not None:
        stats["ephemeral-storage"] = _fs(pod.ephemeral)
    if pod.usage.processes is not None:
        stats["process_stats"] = {"process_count": pod.usage.processes}
    return stats


def summary(node_name: str, usage: NodeUsage, *, only_cpu_and_memory: bool = False) -> dict[str, Any]:
    """Build a Summary (stats/v1alpha1); what is not measured is left out.

    ``only_cpu_and_memory``: what upstream answers to that query parameter.
    """
    node: dict[str, Any] = {"nodeName": node_name, **_usage(usage.usage, usage.time)}
    if usage.system:
        node["systemContainers"] = [{"name": one.name, **_usage(one.usage, usage.time)} for one in usage.system]
    if only_cpu_and_memory:
        return {"node": _brief(node), "pods": [_brief(_pod(pod, usage.time)) for pod in usage.pods]}
    if usage.network is not None:
        node["network"] = _network(usage.network, usage.time)
    if usage.fs is not None:
        node["fs"] = _fs(usage.fs)
    runtime = {
        name: _fs(fs)
        for name, fs in (("imageFs", usage.image_fs), ("containerFs", usage.container_fs))
        if fs is not None
    }
    if runtime:
        node["runtime"] = runtime
    if usage.processes is not None:
        node["rlimit"] = {
            "time": _time(usage.time),
            "maxpid": usage.processes.limit,
            "curproc": usage.processes.running,
        }
    return {"node": node, "pods": [_pod(pod, usage.time) for pod in usage.pods]}


_BRIEF = ("nodeName", "podRef", "name", "startTime", "cpu", "memory")


def _brief(stats: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in stats.items() if name in _BRIEF}
    for name in ("systemContainers", "containers"):
        if name in stats:
            kept[name] = [_brief(one) for one in stats[name]]
    return kept


_SCOPES = ("node", "pod", "container")
_RESOURCE_METRICS = (
    # name, help, kind, where it exists
    ("cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the {0} in core-seconds", "counter", _SCOPES),
    ("memory_working_set_bytes", "[STABLE] Current working set of the {0} in bytes", "gauge", _SCOPES),
    ("swap_usage_bytes", "[ALPHA] Current swap usage of the {0} in bytes. Reported only on non-windows systems",
     "gauge", _SCOPES),
    ("start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", "gauge", ("container",)),
)  # fmt: skip


def _value(metric: str, usage: Usage) -> str | None:
    if metric == "cpu_usage_seconds_total":
        return None if usage.cpu_nanoseconds is None else seconds(usage.cpu_nanoseconds)
    if metric == "start_time_seconds":
        return None if usage.started_at is None else f"{usage.started_at:.3f}"
    number = usage.swap_usage_bytes if metric == "swap_usage_bytes" else usage.memory_working_set_bytes
    return None if number is None else str(number)


def resource_metrics(usage: NodeUsage | None) -> str:
    """Write the text of /metrics/resource, which metrics-server reads; None means that usage could not be read."""
    lines: list[str] = []
    if usage is not None:
        stamp = int(usage.time * 1000)
        samples: dict[str, list[tuple[str, Usage]]] = {"node": [("", usage.usage)], "pod": [], "container": []}
        for pod in usage.pods:
            where = {"namespace": pod.namespace, "pod": pod.name}
            samples["pod"].append((labels(where), pod.usage))
            for each in pod.containers:
                samples["container"].append((labels({"container": each.name, **where}), each.usage))
        for scope, entries in samples.items():
            for metric, text, kind, scopes in _RESOURCE_METRICS:
                if scope not in scopes:
                    continue
                values = [(where, value) for where, u in entries if (value := _value(metric, u)) is not None]
                at = None if metric == "start_time_seconds" else stamp
                lines += family(f"{scope}_{metric}", text.format(scope), kind, values, at)
    failed = [("", "0" if usage is not None else "1")]
    about = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise"
    lines += family("resource_scrape_error", about, "gauge", failed)
    return "\n".join(lines) + "\n"
