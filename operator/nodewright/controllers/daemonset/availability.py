"""Whether a pod does its work, by the rules of its DaemonSet. Pure."""

from __future__ import annotations

from nodewright.controllers.daemonset import pods
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.view import View


def is_ready(view: View, pod: Pod) -> bool:
    """Whether the pod is ready."""
    return pods.is_ready(pod)


def is_available(view: View, pod: Pod) -> bool:
    """Whether the pod has been ready for minReadySeconds."""
    return pods.is_available(pod, view.ds.spec.min_ready_seconds, view.now)
