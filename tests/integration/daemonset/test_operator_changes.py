"""Restarts, leader changes and loss of leadership: the pods must not notice."""

import pytest

from nodewright.framework.leader import LeadershipLost
from nodewright.kube.resources import LEASES

pytestmark = pytest.mark.needs_cluster

# Seconds; a busy machine must not make a healthy leader miss its deadline.
FAST = {"lease_duration": 5.0, "renew_deadline": 4.0, "retry_period": 0.2}


async def test_a_restart_creates_and_deletes_nothing(world, start_operator):
    for i in range(3):
        await world.add_node(f"n{i}")
    thread = await start_operator()
    await world.create()
    await world.until(lambda: len(world.pods()) == 3)
    await world.make_all_ready()
    await world.until(lambda: world.condition().get("status") == "True")
    await thread.stop()
    before = {p["metadata"]["name"]: p["metadata"]["resourceVersion"] for p in world.pods()}
    status = world.ds()["metadata"]["resourceVersion"]
    world.log.clear()
    thread = await start_operator()
    # A change that must be answered proves that the new process has looked at the DaemonSet.
    await world.add_node("late")
    await world.until(lambda: len(world.pods()) == 4)
    changes = [entry for entry in world.log if entry[0] == "Pod"]
    assert [what for _, what, _ in changes] == ["added"]
    after = {p["metadata"]["name"]: p["metadata"]["resourceVersion"] for p in world.pods()}
    assert before.items() <= after.items()
    assert int(world.ds()["metadata"]["resourceVersion"]) >= int(status)
    assert not thread.ended.done()


async def test_a_crash_in_the_middle_leads_to_the_same_end(world, start_operator):
    nodes = [await world.add_node(f"n{i:02}") for i in range(20)]
    thread = await start_operator(**FAST)
    await world.create()
    await world.until(lambda: world.pods())

    def crash():
        """No goodbye: what was begun is cut off, the Lease stays held."""
        for worker in thread.operator._workers:
            worker.cancel()
        thread.operator.elector._leader = False

    thread.call(crash)
    await thread.stop()
    await start_operator(**FAST)
    await world.until(lambda: sorted(world.pods_by_node()) == nodes and len(world.pods()) == 20)
    await world.until(lambda: world.status().get("currentNumberScheduled") == 20)
    assert len(world.pods()) == 20


async def test_a_standby_takes_over_when_the_leader_stops(world, start_operator):
    first = await start_operator(**FAST)
    second = await start_operator(wait=False, **FAST)
    one = await world.add_node("one")
    await world.create()
    await world.until(lambda: set(world.pods_by_node()) == {one})
    assert first.operator.elector.is_leader
    assert not second.started.done()
    await first.stop()
    await second.wait_started(10)
    two = await world.add_node("two")
    await world.until(lambda: set(world.pods_by_node()) == {one, two})
    lease = await world.client.get(LEASES, second.operator.options.lease_name, "kube-system")
    assert lease["spec"]["holderIdentity"] == second.operator.identity
    assert not second.ended.done()


async def test_a_leader_that_lost_its_lease_stops_with_an_error(world, start_operator):
    thread = await start_operator(**FAST)
    thief = {"spec": {"holderIdentity": "thief"}}
    await world.client.patch(LEASES, thread.operator.options.lease_name, thief, "kube-system")
    with pytest.raises(LeadershipLost, match="taken by thief"):
        await thread.wait_ended(15)
    await world.add_node("n")
    await world.create()
    lease = await world.client.get(LEASES, thread.operator.options.lease_name, "kube-system")
    assert lease["spec"]["holderIdentity"] == "thief"  # and it did not take it back
    assert not world.pods()
