"""SchedulerProfile objects, applied live: which profiles are served follows from the objects and the command line."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping

import msgspec

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import ApiError, NotFound
from nodewright.kube.resources import SCHEDULERPROFILES
from nodewright.kube.times import now_rfc3339

from .objects import Lean, ObjectMeta
from .profile import Profile, ProfileError, config_from_json
from .registry import Registry

log = logging.getLogger(__name__)

# How often to look whether the kind has been defined meanwhile; once it is, changes come by watch.
UNDEFINED_RETRY = 30.0


class ProfileCondition(Lean):
    """A condition as the object has it."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class ProfileStatus(Lean):
    """Whether the profile is in use, and if not, why."""

    conditions: list[ProfileCondition] = msgspec.field(default_factory=list)


class SchedulerProfile(Lean):
    """The custom resource. The spec is kept as it came: reading it is what may fail."""

    metadata: ObjectMeta
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: ProfileStatus = msgspec.field(default_factory=ProfileStatus)


class Verdict(msgspec.Struct, frozen=True):
    """What an object amounts to: accepted, or the reason and message why not."""

    accepted: bool
    reason: str
    message: str


class ProfileSet:
    """Turns objects into profiles. A profile that cannot be used changes nothing for the others.

    While an object that was good before is bad, its last good version goes on being served.
    """

    def __init__(self, base: Mapping[str, Profile], registry: Registry) -> None:
        """`base` are the profiles of the command line; an object for the same schedulerName takes their place."""
        self._base = dict(base)
        self._registry = registry
        self._good: dict[str, tuple[int, Profile]] = {}  # by the object's UID: generation and profile

    def resolve(self, objects: Iterable[SchedulerProfile]) -> tuple[dict[str, Profile], dict[str, Verdict]]:
        """The profiles to serve by schedulerName, and the verdict on each object by its name."""
        served = dict(self._base)
        verdicts: dict[str, Verdict] = {}
        owners: dict[str, str] = {}
        ordered = sorted(objects, key=lambda o: (o.metadata.creation_timestamp or "", o.metadata.name))
        for item in ordered:
            name = item.metadata.name
            profile, verdict = self._read(item)
            if profile is not None and profile.scheduler_name in owners:
                holder = owners[profile.scheduler_name]
                text = (
                    f"spec.schedulerName: {profile.scheduler_name!r} is served by the older SchedulerProfile {holder!r}"
                )
                verdicts[name] = Verdict(False, "Duplicate", text)
                continue
            verdicts[name] = verdict
            if profile is not None:
                owners[profile.scheduler_name] = name
                served[profile.scheduler_name] = profile
        self._good = {uid: good for uid, good in self._good.items() if uid in {o.metadata.uid for o in ordered}}
        return served, verdicts

    def _read(self, item: SchedulerProfile) -> tuple[Profile | None, Verdict]:
        uid, generation = item.metadata.uid, item.metadata.generation
        known = self._good.get(uid)
        if known is not None and known[0] == generation:
            return known[1], Verdict(True, "Served", _served(known[1]))
        try:
            profile = Profile(config_from_json(item.spec), self._registry)
        except ProfileError as error:
            text = f"spec: {error}"
            if known is not None:
                text += f" (generation {known[0]} goes on being served)"
            return (known[1] if known else None), Verdict(False, "Invalid", text)
        self._good[uid] = (generation, profile)
        return profile, Verdict(True, "Served", _served(profile))


def _served(profile: Profile) -> str:
    return f"pods with schedulerName {profile.scheduler_name!r} are placed by this profile"


class ProfileWatcher:
    """Follows SchedulerProfile objects and tells `on_change` which profiles to serve; writes their status."""

    def __init__(
        self, client: Client, profiles: ProfileSet, on_change: Callable[[Mapping[str, Profile]], None]
    ) -> None:
        self._client = client
        self._profiles = profiles
        self._on_change = on_change
        self._changed = asyncio.Event()
        # Only the leader writes status; a standby merely follows.
        self.writes_status = False
        self._cache: WatchCache[SchedulerProfile] = WatchCache(
            client, SCHEDULERPROFILES, type=SchedulerProfile, name="schedulerprofiles"
        )
        self._cache.add_handler(lambda old, new: self._changed.set())

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._until_defined()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cache.run())
            await self._cache.wait_synced()
            while True:
                self._changed.clear()
                await self._apply()
                await self._changed.wait()

    def lead(self) -> None:
        """From now on, write status too."""
        self.writes_status = True
        self._changed.set()

    async def _until_defined(self) -> None:
        while True:
            try:
                await self._client.list(SCHEDULERPROFILES, limit=1)
                return
            except NotFound:
                log.debug("no SchedulerProfiles: the kind is not defined")
            except ApiError as error:
                log.warning("cannot read SchedulerProfiles", extra={"error": str(error)})
            await asyncio.sleep(UNDEFINED_RETRY * (0.5 + random.random()))

    async def _apply(self) -> None:
        objects = list(self._cache.values())
        served, verdicts = self._profiles.resolve(objects)
        self._on_change(served)
        if not self.writes_status:
            return
        for item in objects:
            patch = status_patch(item, verdicts[item.metadata.name], now_rfc3339())
            if patch is None:
                continue
            try:
                await self._client.patch(
                    SCHEDULERPROFILES, item.metadata.name, patch, kind=PatchType.MERGE, subresource="status"
                )
            except NotFound:
                continue  # deleted meanwhile
            except ApiError as error:
                log.warning("status not written", extra={"profile": item.metadata.name, "error": str(error)})


def status_patch(item: SchedulerProfile, verdict: Verdict, now: str) -> dict[str, object] | None:
    """A merge patch that records the verdict in the condition Accepted, or None when it is recorded already."""
    status = "True" if verdict.accepted else "False"
    generation = item.metadata.generation
    wanted = ("Accepted", status, verdict.reason, verdict.message, generation)
    current = next((c for c in item.status.conditions if c.type == "Accepted"), None)
    if current is not None:
        has = (current.type, current.status, current.reason, current.message, current.observed_generation)
        if has == wanted:
            return None
    since = current.last_transition_time if current is not None and current.status == status else now
    condition = {
        "type": "Accepted",
        "status": status,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }
    others = [msgspec.to_builtins(c) for c in item.status.conditions if c.type != "Accepted"]
    return {"status": {"observedGeneration": generation, "conditions": [*others, condition]}}
