"""Our profile for the comparison."""

from __future__ import annotations

from differential.upstream import SCHEDULER_NAME

from nodewright.scheduler.profile import Profile, ProfileConfig


def default_profile() -> Profile:
    """Our defaults, which must be upstream's."""
    return Profile(ProfileConfig(scheduler_name=SCHEDULER_NAME))
