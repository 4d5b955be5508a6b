"""Which profiles a scheduler would serve, for pictures that are not followed."""

from __future__ import annotations

from collections.abc import Iterable

from .profile import DEFAULT_SCHEDULER_NAME, Profile, ProfileConfig
from .profiles import ProfileSet, SchedulerProfile
from .registry import Registry

# What a scheduler serves without SchedulerProfiles, alone or in the embedded cluster.
USUAL = (DEFAULT_SCHEDULER_NAME, "default-scheduler")


def served_profiles(
    objects: Iterable[SchedulerProfile], names: Iterable[str] = ()
) -> tuple[dict[str, Profile], list[str]]:
    """Profiles by schedulerName: the objects', and default plugins under the usual names and `names`.

    The second part tells in sentences which objects are not in use, and why.
    """
    registry = Registry()
    base = {n: Profile(ProfileConfig(scheduler_name=n), registry) for n in dict.fromkeys((*USUAL, *names)) if n}
    served, verdicts = ProfileSet(base, registry).resolve(objects)
    notes = [
        f"SchedulerProfile {name} is not in use: {verdict.message}"
        for name, verdict in verdicts.items()
        if not verdict.accepted
    ]
    return served, notes
