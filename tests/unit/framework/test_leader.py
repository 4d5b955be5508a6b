import asyncio
import base64
import copy
import json

import pytest

from nodewright.framework.leader import LeaderElector, LeadershipLost
from nodewright.kube.config import Config
from nodewright.kube.credentials import TokenSource
from nodewright.kube.errors import AlreadyExists, Conflict, NotFound, ServerUnavailable


class Api:
    """One Lease with optimistic locking."""

    def __init__(self):
        self.config = Config("http://192.0.2.1")
        self.lease = None
        self.version = 0
        self.down = False
        self.writes = 0

    def _up(self):
        if self.down:
            raise ServerUnavailable(0, "", "no route to host")

    def _store(self, lease):
        self.version += 1
        self.writes += 1
        self.lease = copy.deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    async def get(self, res, name, namespace, *, type):
        self._up()
        if self.lease is None:
            raise NotFound(404, "NotFound", "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, res, obj, namespace, *, type):
        self._up()
        if self.lease is not None:
            raise AlreadyExists(409, "AlreadyExists", "exists")
        return self._store(obj)

    async def replace(self, res, obj, name, namespace, *, type):
        self._up()
        if self.lease is None:
            raise NotFound(404, "NotFound", "no lease")
        if obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "changed")
        return self._store(obj)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def elector(api, name, clock=None, **times):
    times = {"lease_duration": 15, "renew_deadline": 10, "retry_period": 2, **times}
    return LeaderElector(api, "ns", "lease", name, clock=clock or Clock(), **times)


async def test_the_first_candidate_creates_the_lease():
    api = Api()
    one = elector(api, "one")
    await one.acquire()
    assert one.is_leader
    spec = api.lease["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("one", 15, 0)


async def test_the_lease_goes_with_the_account_that_made_it(tmp_path):
    claims = {"kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "operator", "uid": "u-1"}}}
    file = tmp_path / "token"
    file.write_text(f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()}.c2ln")
    api = Api()
    api.config = Config("https://192.0.2.1", token=TokenSource.from_file(file))
    one = elector(api, "one")
    await one.acquire()
    await one._attempt(10)
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "operator", "uid": "u-1"}
    assert api.lease["metadata"]["ownerReferences"] == [owner]


async def test_a_second_candidate_waits_for_expiry_by_its_own_clock():
    api, clock = Api(), Clock()
    await elector(api, "one").acquire()
    two = elector(api, "two", clock)
    assert not await two._attempt(10)
    clock.now += 14.9
    assert not await two._attempt(10)
    clock.now += 0.1
    assert await two._attempt(10)
    assert api.lease["spec"]["holderIdentity"] == "two"
    assert api.lease["spec"]["leaseTransitions"] == 1


async def test_a_renewal_starts_the_wait_anew():
    api, clock = Api(), Clock()
    one, two = elector(api, "one"), elector(api, "two", clock)
    await one.acquire()
    assert not await two._attempt(10)
    clock.now += 14
    await one._attempt(10)
    assert not await two._attempt(10)
    clock.now += 14
    assert not await two._attempt(10)


async def test_a_released_lease_is_taken_at_once():
    api = Api()
    one, two = elector(api, "one"), elector(api, "two")
    await one.acquire()
    await one.release()
    assert not one.is_leader
    assert api.lease["spec"]["holderIdentity"] == ""
    await two.acquire()
    assert api.lease["spec"]["holderIdentity"] == "two"


async def test_losing_a_race_for_the_lease_is_no_leadership():
    api, clock = Api(), Clock()
    await elector(api, "one").acquire()
    two, three = elector(api, "two", clock), elector(api, "three", clock)
    assert not await two._attempt(10)
    assert not await three._attempt(10)
    clock.now += 15
    assert await two._attempt(10)
    assert not await three._attempt(10)


async def test_an_identity_that_returns_takes_its_own_lease_up_again():
    api = Api()
    await elector(api, "one").acquire()
    again = elector(api, "one")
    await again.acquire()
    assert api.lease["spec"]["leaseTransitions"] == 0


async def test_leadership_is_lost_when_it_cannot_be_renewed_in_time():
    api = Api()
    one = LeaderElector(api, "ns", "l", "one", lease_duration=0.3, renew_deadline=0.1, retry_period=0.02)
    await one.acquire()
    renewal = asyncio.create_task(one.renew_forever())
    await asyncio.sleep(0.05)
    assert not renewal.done()
    api.down = True
    with pytest.raises(LeadershipLost, match="not renewed"):
        await renewal
    assert not one.is_leader


async def test_a_short_outage_is_survived():
    api = Api()
    one = LeaderElector(api, "ns", "l", "one", lease_duration=30, renew_deadline=20, retry_period=0.01)
    await one.acquire()
    renewal = asyncio.create_task(one.renew_forever())
    api.down = True
    await asyncio.sleep(0.03)
    api.down = False
    before = api.writes
    await asyncio.sleep(0.05)
    assert api.writes > before
    assert one.is_leader
    renewal.cancel()
    await asyncio.gather(renewal, return_exceptions=True)


async def test_leadership_is_lost_at_once_when_another_holds_the_lease():
    api = Api()
    one = LeaderElector(api, "ns", "l", "one", lease_duration=30, renew_deadline=20, retry_period=0.01)
    await one.acquire()
    api.lease["spec"]["holderIdentity"] = "thief"
    api.lease["metadata"]["resourceVersion"] = "77"
    with pytest.raises(LeadershipLost, match="taken by thief"):
        await one.renew_forever()


async def test_a_deleted_lease_is_made_again():
    api = Api()
    one = elector(api, "one")
    await one.acquire()
    api.lease = None
    assert await one._attempt(10)
    assert api.lease["spec"]["holderIdentity"] == "one"


async def test_run_cancels_the_work_when_leadership_is_lost():
    api = Api()
    one = LeaderElector(api, "ns", "l", "one", lease_duration=0.3, renew_deadline=0.1, retry_period=0.02)
    cancelled = asyncio.Event()

    async def work():
        api.down = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(LeadershipLost):
        await one.run(work)
    assert cancelled.is_set()


async def test_run_releases_when_the_work_ends():
    api = Api()

    async def work():
        assert api.lease["spec"]["holderIdentity"] == "one"

    await elector(api, "one").run(work)
    assert api.lease["spec"]["holderIdentity"] == ""


def test_times_must_be_in_order():
    with pytest.raises(ValueError, match="lease_duration > renew_deadline"):
        elector(Api(), "one", lease_duration=5, renew_deadline=10)


async def test_it_may_act_until_the_renewal_is_overdue_by_its_own_clock():
    api, clock = Api(), Clock()
    one = elector(api, "one", clock)
    assert not one.may_act
    await one.acquire()
    assert one.may_act
    clock.now += 9.9
    assert one.may_act
    clock.now += 0.1
    assert not one.may_act
    assert await one._attempt(10)
    assert one.may_act


async def test_a_lease_that_is_kept_has_to_expire():
    api, clock = Api(), Clock()
    one, two = elector(api, "one"), elector(api, "two", clock)
    await one.acquire()
    one.keep()
    await one.release()
    assert not one.is_leader
    assert api.lease["spec"]["holderIdentity"] == "one"
    assert not await two._attempt(10)
    clock.now += 15
    assert await two._attempt(10)


async def test_a_leader_that_does_not_end_when_its_lease_has_expired_is_reported():
    clock = Clock()
    one = elector(Api(), "one", clock)
    assert one.trouble is None
    await one.acquire()
    clock.now += 35
    assert one.trouble is None
    clock.now += 1
    assert one.trouble == "lease ns/lease expired 21 s ago"
