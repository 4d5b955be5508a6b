"""The table of reviewers: the one place to touch to have another kind reviewed (and the chart's list of webhooks)."""

from __future__ import annotations

from collections.abc import Mapping

from nodewright.controllers.admission.daemonset import DaemonSetReviewer
from nodewright.controllers.admission.nodeagentconfig import NodeAgentConfigReviewer
from nodewright.controllers.admission.schedulerprofile import ProfileChecker, SchedulerProfileReviewer
from nodewright.framework.webhook.review import Reviewer
from nodewright.kube.client import Client
from nodewright.kube.resources import DAEMONSETS, NODEAGENTCONFIGS, SCHEDULERPROFILES, Resource


def path_of(resource: Resource) -> str:
    """Where a kind's reviewer is served: controller-runtime's form, `/validate-GROUP-VERSION-KIND`."""
    return f"/validate-{resource.group.replace('.', '-')}-{resource.version}-{resource.kind.lower()}"


def reviewers(client: Client, check_profile: ProfileChecker) -> Mapping[str, Reviewer]:
    """All reviewers by path. `check_profile` is the scheduler's reader of profiles, handed in by the command line."""
    return {
        path_of(DAEMONSETS): DaemonSetReviewer(client),
        path_of(SCHEDULERPROFILES): SchedulerProfileReviewer(client, check_profile),
        path_of(NODEAGENTCONFIGS): NodeAgentConfigReviewer(client),
    }
