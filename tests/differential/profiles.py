"""Our profiles for the comparison."""

from __future__ import annotations

from typing import Any

from differential.upstream import SCHEDULER_NAME
from nodewright.scheduler.profile import Profile, profile_from_object


def make_profile(**plugins: Any) -> Profile:
    """Our defaults, which must be upstream's; `plugins` changes them, as in a SchedulerProfile."""
    return profile_from_object({"schedulerName": SCHEDULER_NAME, "plugins": plugins})
