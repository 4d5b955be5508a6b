"""Review of SchedulerProfiles: what the scheduler itself would say, and what it will ignore."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from nodewright.controllers.admission.fields import Json, child
from nodewright.framework.webhook.review import Answer, Cause, Request
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import SCHEDULERPROFILES

# Gives what is wrong with a profile's spec, "" for nothing. The scheduler's own reader; controllers may not import it.
ProfileChecker = Callable[[Json], str]

KUBE_SCHEDULER = "default-scheduler"
GATES = "SchedulingGates"
# Extension points at which switching a plugin off changes nothing, and why.
WITHOUT_EFFECT = {
    "preEnqueue": "scheduling gates are always respected",
    "preScore": "it goes with score",
}


class SchedulerProfileReviewer:
    """Refuses what the scheduler could not serve; a name that is taken already included."""

    def __init__(self, client: Client, check: ProfileChecker) -> None:
        """`check` may be slow the first time (it loads the plugins), and is called in a thread."""
        self._client = client
        self._check = check

    async def __call__(self, request: Request) -> Answer:
        """Review a creation or a change."""
        new = request.new()
        spec = child(new, "spec")
        fault = await asyncio.to_thread(self._check, spec)
        causes = [Cause("spec", f"Invalid value: {fault}")] if fault else []
        warnings = advise(spec)
        try:
            others = (await self._client.list(SCHEDULERPROFILES, type=dict)).items
            causes += check_name(new, others)
        except ApiError as error:
            warnings.append(f"could not look for other profiles of this schedulerName: {error}")
        return Answer(tuple(causes), tuple(warnings))


def check_name(new: Json, others: Iterable[Json]) -> list[Cause]:
    """A schedulerName belongs to one profile: the scheduler serves the oldest and refuses the rest. Pure."""
    name, own = child(new, "spec").get("schedulerName"), child(new, "metadata").get("name")
    holders = sorted(
        str(child(other, "metadata").get("name"))
        for other in others
        if child(other, "spec").get("schedulerName") == name and child(other, "metadata").get("name") != own
    )
    if not holders:
        return []
    text = f'Duplicate value: "{name}": served by SchedulerProfile {holders[0]!r}'
    return [Cause("spec.schedulerName", text, "FieldValueDuplicate")]


def advise(spec: Json) -> list[str]:
    """Warnings about fields that the scheduler accepts and ignores. Pure."""
    warnings: list[str] = []
    if spec.get("schedulerName") == KUBE_SCHEDULER:
        warnings.append(
            f"spec.schedulerName: where kube-scheduler runs too, it serves {KUBE_SCHEDULER!r} as well, and both "
            "will place the same pods"
        )
    if spec.get("percentageOfNodesToScore") is not None:
        warnings.append("spec.percentageOfNodesToScore: has no effect, every node is looked at")
    plugins = child(spec, "plugins")
    for point, why in WITHOUT_EFFECT.items():
        if child(plugins, point).get("disabled"):
            warnings.append(f"spec.plugins.{point}.disabled: has no effect, {why}")
    off = [entry.get("name") for entry in child(plugins, "multiPoint").get("disabled") or [] if isinstance(entry, dict)]
    if GATES in off:
        warnings.append(f"spec.plugins.multiPoint.disabled: {GATES} has no effect, {WITHOUT_EFFECT['preEnqueue']}")
    return warnings
