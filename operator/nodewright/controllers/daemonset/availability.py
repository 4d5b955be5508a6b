"""Whether a pod does its work, by the rules of its DaemonSet. Pure.

A pod that runs once does its work by having succeeded. One that was updated in place (see `inplace`) does it again once
its changed containers were started anew, whatever its Ready condition says until then.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nodewright.controllers.daemonset import pods
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.view import View
from nodewright.kube.times import seconds_since


def is_ready(view: View, pod: Pod) -> bool:
    """Whether the pod is ready."""
    if view.ds.spec.run_once:
        return pod.status.phase == "Succeeded"
    return pods.is_ready(pod) and (pod.metadata.annotations is None or not waits_for_restart(pod))


def ready_since(view: View, pod: Pod) -> str | None:
    """When the pod became ready; None while it is not. "" where it is ready and the time is unknown."""
    if not is_ready(view, pod):
        return None
    since = pods.ready_since(pod) or ""
    # A container may be started anew so quickly that the Ready condition never shows it.
    return max(since, _last_start(pod)) if since and noted_restarts(pod) else since


def is_available(view: View, pod: Pod) -> bool:
    """Whether the pod has been ready for minReadySeconds. What runs once is available when it has succeeded."""
    needed = view.ds.spec.min_ready_seconds
    if needed <= 0 or view.ds.spec.run_once:
        return is_ready(view, pod)
    since = ready_since(view, pod)
    if not since:
        return False
    return seconds_since(since, view.now) >= needed


def noted_restarts(pod: Pod) -> Mapping[str, int]:
    """The containers that an update in place has changed, with their restart counts of that moment."""
    own = pod.metadata.annotations
    if own is None or not own.in_place:
        return {}
    try:
        return msgspec.json.decode(own.in_place, type=dict[str, int])
    except msgspec.DecodeError:
        return {}  # not by us


def waits_for_restart(pod: Pod) -> bool:
    """Whether an update in place has changed containers that still are as they were before."""
    noted = noted_restarts(pod)
    if not noted:
        return False
    counts = {status.name: status.restart_count for status in pod.status.container_statuses}
    return any(counts.get(name, 0) <= count for name, count in noted.items())


def _last_start(pod: Pod) -> str:
    """When the container that runs for the shortest time was started. (RFC 3339 in UTC sorts as text.)"""
    running = (status.state.running for status in pod.status.container_statuses if status.state is not None)
    return max((each.started_at or "" for each in running if each is not None), default="")
