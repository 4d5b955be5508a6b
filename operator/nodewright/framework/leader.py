"""Leader election on a Lease, with client-go's rules and defaults (15/10/2 s).

A candidate trusts no other clock: it takes over when it has seen no change of the Lease for a whole lease duration
by its own monotonic clock. The leader gives up when it could not renew for `renew_deadline`, which is shorter, so
that its work has ended before another one starts. There is no fencing: writes carry resourceVersion or UID
preconditions all the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from nodewright.framework import metrics
from nodewright.kube.client import Client
from nodewright.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from nodewright.kube.resources import LEASES
from nodewright.kube.serviceaccount import owner_references
from nodewright.kube.times import now_rfc3339

log = logging.getLogger(__name__)

_HEALTH_TOLERANCE = 20.0  # seconds, kube-scheduler's: a process that is merely slow to end is not reported


class LeadershipLost(Exception):
    """The Lease could not be renewed in time, or belongs to someone else; all work must stop now."""


class LeaderElector:
    """Holds the Lease `namespace/name` for `identity` (unique per process)."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Times in seconds; lease_duration > renew_deadline > retry_period."""
        if not lease_duration > renew_deadline > retry_period > 0:
            raise ValueError("leader election needs lease_duration > renew_deadline > retry_period > 0")
        self._client = client
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._lease_duration = lease_duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._clock = clock
        self._lease: dict[str, Any] | None = None  # as last seen
        self._seen_spec: dict[str, Any] = {}
        self._seen_at = clock()
        self._renewed_at = 0.0
        self._leader = False
        self._gauge = metrics.LEADER.labels(name)
        self._gauge.set(0)

    @property
    def is_leader(self) -> bool:
        """True from acquisition until loss or release."""
        return self._leader

    @property
    def may_act(self) -> bool:
        """Whether no other process can have taken over yet, by our own clock; ask right before a write."""
        return self._leader and self._clock() - self._renewed_at < self._renew_deadline

    @property
    def trouble(self) -> str | None:
        """What is wrong when the Lease has expired and this process, which should have ended by then, still runs."""
        late = self._clock() - self._renewed_at - self._lease_duration
        if not self._leader or late <= _HEALTH_TOLERANCE:
            return None
        return f"lease {self._namespace}/{self._name} expired {late:.0f} s ago"

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last seen; "" when nobody."""
        return str(self._seen_spec.get("holderIdentity") or "")

    async def run(self, on_started: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, then run `on_started()` and renew; release at its end or on cancellation.

        Raises LeadershipLost after cancelling `on_started`; exceptions of `on_started` pass through.
        """
        await self.acquire()
        work = asyncio.ensure_future(on_started())
        renewal = asyncio.ensure_future(self.renew_forever())
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if renewal.done():
                renewal.result()
            await work
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            await self.release()

    async def acquire(self) -> None:
        """Return once this process is the leader."""
        log.info(
            "waiting for leadership", extra={"lease": f"{self._namespace}/{self._name}", "identity": self.identity}
        )
        reported = self.identity
        while not await self._attempt(self._renew_deadline):
            if self.holder != reported:
                reported = self.holder
                log.info("another process leads", extra={"leader": reported})
            await asyncio.sleep(self._retry_period * (1.0 + 1.2 * random.random()))
        self._leader = True
        self._gauge.set(1)
        log.info("became leader", extra={"identity": self.identity})

    async def renew_forever(self) -> None:
        """Renew until cancelled; raises LeadershipLost."""
        while True:
            await asyncio.sleep(self._retry_period)
            left = self._renewed_at + self._renew_deadline - self._clock()
            renewed = left > 0 and await self._attempt(left)
            taken = bool(self.holder) and self.holder != self.identity
            if renewed:
                continue
            if taken or self._clock() - self._renewed_at >= self._renew_deadline:
                self._leader = False
                self._gauge.set(0)
                raise LeadershipLost(
                    f"lease {self._namespace}/{self._name} "
                    + (f"was taken by {self.holder}" if taken else f"not renewed for {self._renew_deadline:g} s")
                )

    def keep(self) -> None:
        """Let the Lease expire instead of releasing it: what was sent may still be carried out for a while."""
        self._leader = False
        self._gauge.set(0)

    async def release(self) -> None:
        """Give the Lease up at once, so that a successor need not wait for its expiry. Failures are only logged."""
        if not self._leader or self._lease is None:
            return
        self._leader = False
        self._gauge.set(0)
        now = now_rfc3339(micro=True)
        spec = {
            **self._seen_spec,
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": now,
            "acquireTime": now,
        }
        try:
            async with asyncio.timeout(self._retry_period):
                await self._write(spec)
            log.info("released leadership", extra={"identity": self.identity})
        except (ApiError, TimeoutError) as error:
            log.warning("could not release leadership: %s", error or "timed out")

    async def _attempt(self, limit: float) -> bool:
        """One try to get or renew the Lease within `limit` seconds."""
        started = self._clock()
        try:
            async with asyncio.timeout(limit):
                held = await self._acquire_or_renew()
        except (ApiError, TimeoutError) as error:
            log.warning("leader election: %s", error or f"no answer within {limit:.1f} s")
            return False
        if held:
            # Counted from before the request: the server may have stored the renewal at any time since.
            self._renewed_at = started
        return held

    async def _acquire_or_renew(self) -> bool:
        if self._leader and self._lease is not None:
            try:
                await self._write({**self._seen_spec, "renewTime": now_rfc3339(micro=True)})
                return True
            except (Conflict, NotFound):
                pass  # somebody changed it; look at it
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace, type=dict)
        except NotFound:
            return await self._create()
        self._observe(lease)
        now = now_rfc3339(micro=True)
        spec = {**self._seen_spec, "leaseDurationSeconds": int(self._lease_duration), "renewTime": now}
        if self.holder != self.identity:
            if self.holder and not self._expired():
                return False
            spec |= {
                "holderIdentity": self.identity,
                "acquireTime": now,
                "leaseTransitions": int(self._seen_spec.get("leaseTransitions") or 0) + 1,
            }
        try:
            await self._write(spec)
        except Conflict:
            return False
        return True

    def _expired(self) -> bool:
        duration = float(self._seen_spec.get("leaseDurationSeconds") or self._lease_duration)
        return self._clock() >= self._seen_at + duration

    def _observe(self, lease: dict[str, Any]) -> None:
        """Remember the Lease; the time of the change is ours, taken from our own clock."""
        spec = lease.get("spec") or {}
        if spec != self._seen_spec or self._lease is None:
            self._seen_spec = spec
            self._seen_at = self._clock()
        self._lease = lease

    async def _create(self) -> bool:
        now = now_rfc3339(micro=True)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                # It goes with the ServiceAccount as which it is made, when a release is uninstalled.
                "ownerReferences": await owner_references(self._client.config, self._namespace),
            },
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": int(self._lease_duration),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
        try:
            self._observe(await self._client.create(LEASES, lease, self._namespace, type=dict))
        except AlreadyExists:
            return False
        return True

    async def _write(self, spec: dict[str, Any]) -> None:
        assert self._lease is not None
        body = {**self._lease, "spec": spec}
        self._observe(await self._client.replace(LEASES, body, self._name, self._namespace, type=dict))
