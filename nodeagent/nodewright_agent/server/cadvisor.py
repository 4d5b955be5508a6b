"""/metrics/cadvisor: the container_* and machine_* series that dashboards and alerts are made of. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nodewright_agent.server.exposition import family, labels, seconds
from nodewright_agent.usage.model import Interface, NodeUsage, Usage

_LABELS = {"container": "", "id": "", "image": "", "name": "", "namespace": "", "pod": ""}
"""cAdvisor gives every series all of them."""

Read = Callable[[Usage], "int | str | None"]


def _nanoseconds(read: Callable[[Usage], int | None]) -> Read:
    def text(usage: Usage) -> str | None:
        value = read(usage)
        return None if value is None else seconds(value)

    return text


def _stalled(resource: str, kind: str) -> Read:
    def text(usage: Usage) -> str | None:
        pressure = getattr(usage, f"{resource}_pressure")
        return None if pressure is None else f"{getattr(pressure, kind).total / 1e6:.6f}"

    return text


_USAGE: tuple[tuple[str, str, str, Read], ...] = (
    ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "counter",
     _nanoseconds(lambda u: u.cpu_nanoseconds)),
    ("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", "counter",
     _nanoseconds(lambda u: u.cpu_user_nanoseconds)),
    ("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", "counter",
     _nanoseconds(lambda u: u.cpu_system_nanoseconds)),
    ("container_memory_usage_bytes",
     "Current memory usage in bytes, including all memory regardless of when it was accessed", "gauge",
     lambda u: u.memory_usage_bytes),
    ("container_memory_working_set_bytes", "Current working set in bytes.", "gauge",
     lambda u: u.memory_working_set_bytes),
    ("container_memory_rss", "Size of RSS in bytes.", "gauge", lambda u: u.memory_rss_bytes),
    ("container_memory_cache", "Number of bytes of page cache memory.", "gauge", lambda u: u.memory_cache_bytes),
    ("container_memory_mapped_file", "Size of memory mapped files in bytes.", "gauge",
     lambda u: u.memory_mapped_bytes),
    ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", "gauge",
     lambda u: u.memory_peak_bytes),
    ("container_memory_failcnt", "Number of memory usage hits limits", "counter", lambda u: u.memory_failures),
    ("container_memory_swap", "Container swap usage in bytes.", "gauge", lambda u: u.swap_usage_bytes),
    ("container_oom_events_total", "Count of out of memory events observed for the container", "counter",
     lambda u: u.oom_kills),
    ("container_processes", "Number of processes running inside the container.", "gauge", lambda u: u.processes),
    ("container_threads", "Number of threads running inside the container", "gauge", lambda u: u.threads),
    ("container_threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero",
     "gauge", lambda u: u.threads_max or 0),
    ("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", "gauge",
     lambda u: None if u.started_at is None else f"{u.started_at:.3f}"),
    ("container_spec_cpu_shares", "CPU share of the container.", "gauge", lambda u: u.cpu_shares),
    ("container_spec_cpu_period", "CPU period of the container.", "gauge", lambda u: u.cpu_period),
    ("container_spec_cpu_quota", "CPU quota of the container.", "gauge", lambda u: u.cpu_quota),
    ("container_spec_memory_limit_bytes", "Memory limit for the container.", "gauge",
     lambda u: u.memory_limit_bytes or 0),
    ("container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container.", "gauge",
     lambda u: 0),
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", "counter",
     lambda u: u.io.read_bytes if u.io else None),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", "counter",
     lambda u: u.io.write_bytes if u.io else None),
    ("container_fs_reads_total", "Cumulative count of reads completed", "counter",
     lambda u: u.io.reads if u.io else None),
    ("container_fs_writes_total", "Cumulative count of writes completed", "counter",
     lambda u: u.io.writes if u.io else None),
    *((f"container_pressure_{resource}_{name}_seconds_total", text, "counter", _stalled(resource, kind))
      for resource in ("cpu", "memory", "io")
      for name, kind, text in (
          ("stalled", "full", f"Total time duration no tasks in the container could make progress due to {resource} "
           "congestion."),
          ("waiting", "some", f"Total time duration tasks in the container have waited due to {resource} congestion."),
      )),
)  # fmt: skip
_NETWORK = tuple(
    (f"container_network_{way}_{what}_total", f"Cumulative count of {text} {done}", f"{short}_{field}")
    for way, short, done in (("receive", "rx", "received"), ("transmit", "tx", "transmitted"))
    for what, text, field in (
        ("bytes", "bytes", "bytes"),
        ("packets", "packets", "packets"),
        ("errors", "errors encountered while packets were", "errors"),
        ("packets_dropped", "packets dropped while they were", "dropped"),
    )
)

Series = list[tuple[dict[str, str], Usage]]


def metrics(usage: NodeUsage | None, cpus: int, memory: int) -> str:
    """Write the text; None means that usage could not be read. ``cpus`` and ``memory`` are the machine's."""
    lines = family("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise",
                   "gauge", [("", "1" if usage is None else "0")])  # fmt: skip
    lines += family("machine_cpu_cores", "Number of logical CPU cores.", "gauge", [("", str(cpus))])
    lines += family("machine_memory_bytes", "Amount of memory installed on the machine.", "gauge", [("", str(memory))])
    if usage is None:
        return "\n".join(lines) + "\n"
    stamp = int(usage.time * 1000)
    series = list(_series(usage))
    for name, about, kind, read in _USAGE:
        values = [(labels(where), str(value)) for where, one in series if (value := read(one)) is not None]
        lines += family(name, about, kind, values, stamp)
    seen = [(labels(where), str(int(usage.time))) for where, _ in series]
    lines += family("container_last_seen", "Last time a container was seen by the exporter", "gauge", seen, stamp)
    lines += _faults(series, stamp) + _file_systems(usage, stamp) + _networks(usage, stamp)
    return "\n".join(lines) + "\n"


def _series(usage: NodeUsage) -> Iterator[tuple[dict[str, str], Usage]]:
    yield {**_LABELS, "id": "/"}, usage.usage
    for pod in usage.pods:
        own = {**_LABELS, "namespace": pod.namespace, "pod": pod.name}
        yield {**own, "id": pod.cgroup}, pod.usage
        for one in pod.containers:
            yield _container(own, one.name, one.cgroup, one.image, one.id), one.usage


def _container(own: Mapping[str, str], name: str, cgroup: str, image: str, container_id: str) -> dict[str, str]:
    return {**own, "container": name, "id": cgroup, "image": image, "name": container_id}


def _faults(series: Series, stamp: int) -> list[str]:
    values = []
    for where, one in series:
        for kind, number in (("pgfault", one.page_faults), ("pgmajfault", one.major_page_faults)):
            if number is not None:
                values.append((labels({**where, "failure_type": kind, "scope": "hierarchy"}), str(number)))
    return family("container_memory_failures_total", "Cumulative count of memory allocation failures.", "counter",
                  values, stamp)  # fmt: skip


def _file_systems(usage: NodeUsage, stamp: int) -> list[str]:
    used, limits = [], []
    if usage.fs is not None and usage.fs.used is not None:
        where = labels({**_LABELS, "id": "/", "device": ""})
        used.append((where, str(usage.fs.used)))
        limits.append((where, str(usage.fs.capacity)))
    for pod in usage.pods:
        for one in pod.containers:
            if one.rootfs is None or one.rootfs.used is None:
                continue
            own = {**_LABELS, "namespace": pod.namespace, "pod": pod.name, "device": ""}
            where = labels(_container(own, one.name, one.cgroup, one.image, one.id))
            used.append((where, str(one.rootfs.used + ((one.logs.used or 0) if one.logs is not None else 0))))
            limits.append((where, str(one.rootfs.capacity)))
    lines = family("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.",
                   "gauge", used, stamp)  # fmt: skip
    return lines + family("container_fs_limit_bytes",
                          "Number of bytes that can be consumed by the container on this filesystem.",
                          "gauge", limits, stamp)  # fmt: skip


def _networks(usage: NodeUsage, stamp: int) -> list[str]:
    every: list[tuple[dict[str, str], Interface]] = []
    for one in usage.network or ():
        every.append(({**_LABELS, "id": "/", "interface": one.name}, one))
    for pod in usage.pods:
        for one in pod.network or ():
            where = {**_LABELS, "namespace": pod.namespace, "pod": pod.name, "id": pod.cgroup, "interface": one.name}
            every.append((where, one))
    lines: list[str] = []
    for name, about, field in _NETWORK:
        lines += family(name, about, "counter", [(labels(where), str(getattr(one, field))) for where, one in every],
                        stamp)  # fmt: skip
    return lines
