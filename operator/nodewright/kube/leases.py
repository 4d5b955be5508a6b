"""Leases: what says that a node is alive, or who leads."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections.abc import Callable
from datetime import datetime, timedelta

from nodewright.kube import times
from nodewright.kube.api.meta import ObjectMeta, OwnerReference
from nodewright.kube.api.misc import Lease, LeaseSpec
from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.errors import AlreadyExists, ApiError, ConfigError, Conflict, NotFound
from nodewright.kube.resources import LEASES

__all__ = ["LeaseHolder", "expired"]

logger = logging.getLogger(__name__)


def expired(lease: Lease, now: datetime) -> bool:
    """Tell whether a lease's holder has let it run out; a lease nobody ever held counts as run out.

    Clocks of different machines disagree: a contender should rather measure how long it has not seen a change.
    """
    spec = lease.spec
    if not spec.holder_identity or spec.renew_time is None or spec.lease_duration_seconds is None:
        return True
    try:
        renewed = times.parse_rfc3339(spec.renew_time)
    except ValueError:
        return True
    return now > renewed + timedelta(seconds=spec.lease_duration_seconds)


class LeaseHolder:
    """One Lease that this process writes: renewed in place, with the resourceVersion as guard.

    For a node, `run()` renews without end. For leader election, `read`, `create` and `replace` are the moves; who may
    make them is the elector's to decide.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration_seconds: int = 40,
        owner: OwnerReference | None = None,
        clock: Callable[[], datetime] = times.now,
    ) -> None:
        """Describe the lease; nothing is sent yet."""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration = duration_seconds
        self.owner = owner
        self._clock = clock
        self.lease: Lease | None = None

    async def read(self) -> Lease | None:
        """Read the lease anew; None when there is none."""
        try:
            self.lease = await self._client.get(LEASES, self._name, self._namespace, type=Lease)
        except NotFound:
            self.lease = None
        return self.lease

    async def create(self) -> Lease:
        """Create the lease as ours. Raises AlreadyExists."""
        now = times.format_rfc3339(self._clock(), micro=True)
        spec = LeaseSpec(self._identity, self._duration, acquire_time=now, renew_time=now, lease_transitions=0)
        meta = ObjectMeta(
            name=self._name, namespace=self._namespace, owner_references=[self.owner] if self.owner else []
        )
        self.lease = await self._client.create(LEASES, Lease(meta, spec), self._namespace, type=Lease)
        return self.lease

    async def replace(self, lease: Lease, *, release: bool = False) -> Lease:
        """Write the lease with us as holder (or, to release it, nobody), on top of the version that was read.

        Raises Conflict when it has changed since. Counts a transition when the holder changes.
        """
        now = times.format_rfc3339(self._clock(), micro=True)
        new = Lease(copy.copy(lease.metadata), copy.copy(lease.spec))
        spec = new.spec
        if release:
            spec.holder_identity, spec.lease_duration_seconds, spec.renew_time = "", 1, now
        else:
            if spec.holder_identity != self._identity:
                spec.acquire_time = now
                spec.lease_transitions = (spec.lease_transitions or 0) + 1
            spec.holder_identity, spec.lease_duration_seconds, spec.renew_time = self._identity, self._duration, now
        if self.owner is not None and not new.metadata.owner_references:
            new.metadata.owner_references = [self.owner]
        self.lease = await self._client.replace(LEASES, new, self._name, self._namespace, type=Lease)
        return self.lease

    async def renew(self) -> Lease:
        """Write a new renewTime, creating the lease if need be; for leases that are ours by name, as a node's is."""
        try:
            if self.lease is None and await self.read() is None:
                return await self.create()
            assert self.lease is not None
            return await self.replace(self.lease)
        except (Conflict, NotFound, AlreadyExists):
            # someone wrote, removed or made it since we looked; what is there now decides
            lease = await self.read()
            return await self.create() if lease is None else await self.replace(lease)

    async def run(self, interval: float = 10.0) -> None:
        """Renew every `interval` seconds (jittered by 4 %, as kubelet) until cancelled; failures are retried sooner."""
        backoff = Backoff(0.2, min(7.0, interval))  # kubelet's pauses
        failed = False
        while True:
            try:
                await self.renew()
            except (ApiError, ConfigError) as error:
                level = logging.DEBUG if failed else logging.WARNING
                logger.log(level, "lease %s/%s was not renewed: %s", self._namespace, self._name, error)
                failed = True
                await asyncio.sleep(backoff.next())
                continue
            if failed:
                logger.info("lease %s/%s is renewed again", self._namespace, self._name)
            failed = False
            backoff.reset()
            await asyncio.sleep(interval * (1.0 + 0.04 * random.random()))
