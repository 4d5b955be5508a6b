"""The API kinds that the controller can serve. All differences between them are here."""

from __future__ import annotations

import msgspec

from nodewright.kube.resources import APPS_DAEMONSETS, DAEMONSETS, Resource


class Kind(msgspec.Struct, frozen=True):
    """A DaemonSet kind: its resource, and what it has or lacks beside the common rules."""

    resource: Resource
    controller: str  # the controller's name in metrics, logs and events
    extensions: bool  # whether it has our own fields, and status conditions (nobody writes those of apps/v1)
    template_generation: bool  # whether the server maintains the deprecated template generation annotation


NODEWRIGHT = Kind(resource=DAEMONSETS, controller="daemonset", extensions=True, template_generation=False)
APPS = Kind(resource=APPS_DAEMONSETS, controller="apps-daemonset", extensions=False, template_generation=True)
