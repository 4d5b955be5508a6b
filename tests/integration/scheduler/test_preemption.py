"""Preemption against a real API server: victims are told why, deleted, and the Pod gets their place."""

import pytest

from nodewright.kube.errors import NotFound
from nodewright.kube.resources import PODDISRUPTIONBUDGETS, PODS, PRIORITYCLASSES

from .conftest import eventually

pytestmark = pytest.mark.needs_cluster


@pytest.fixture
async def classes(client):
    for name, value, policy in (("low", 1, None), ("high", 1000, None), ("polite", 1000, "Never")):
        body = {"metadata": {"name": name}, "value": value, **({"preemptionPolicy": policy} if policy else {})}
        await client.create(PRIORITYCLASSES, body)
    yield
    for name in ("low", "high", "polite"):
        await client.delete(PRIORITYCLASSES, name)


async def status(space, name, **fields):
    """Write status fields of a Pod, as its agent would."""
    await space.client.patch(PODS, name, {"status": fields}, space.namespace, subresource="status")


async def gone(space, name):
    async def check():
        try:
            await space.get(name)
        except NotFound:
            return True
        return False

    await eventually(check)


async def test_a_victim_is_told_deleted_and_replaced(space, start, classes):
    await space.node("a", "2")
    start()
    await space.pod("victim", {"cpu": "2"}, priorityClassName="low", terminationGracePeriodSeconds=30)
    await space.bound("victim")
    await space.pod("urgent", {"cpu": "2"}, priorityClassName="high")

    async def leaving():
        pod = await space.get("victim")
        return pod if pod["metadata"].get("deletionTimestamp") else None

    victim = await eventually(leaving)
    (why,) = [c for c in victim["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert (why["status"], why["reason"]) == ("True", "PreemptionByScheduler")
    assert why["message"] == "nodewright: preempting to accommodate a higher priority pod"

    async def nominated():
        return (await space.get("urgent"))["status"].get("nominatedNodeName") == "a"

    await eventually(nominated)
    urgent = await space.get("urgent")

    async def event():
        return await space.events("victim", "Preempted")

    (found,) = await eventually(event)
    assert found["note"] == f"Preempted by pod {urgent['metadata']['uid']} on node a"
    assert (found["type"], found["action"], found["related"]["name"]) == ("Normal", "Preempting", "urgent")
    assert not await space.node_of("urgent")  # the victim still has its grace period
    # its agent ends it
    await space.client.delete(PODS, "victim", space.namespace, grace_period_seconds=0)
    assert await space.bound("urgent") == {"urgent": "a"}
    assert not (await space.get("urgent"))["status"].get("nominatedNodeName")


async def test_a_restart_between_eviction_and_binding_loses_nothing(space, start, classes):
    await space.node("a", "2")
    first = start()
    await space.pod("victim", {"cpu": "2"}, priorityClassName="low", terminationGracePeriodSeconds=30)
    await space.bound("victim")
    await space.pod("urgent", {"cpu": "2"}, priorityClassName="high")

    async def nominated():
        pod = await space.get("victim")
        urgent = await space.get("urgent")
        return pod["metadata"].get("deletionTimestamp") and urgent["status"].get("nominatedNodeName") == "a"

    await eventually(nominated)
    first.task.cancel()
    await space.pod("rival", {"cpu": "2"}, priorityClassName="high")
    await space.client.delete(PODS, "victim", space.namespace, grace_period_seconds=0)
    start()
    assert await space.bound("urgent") == {"urgent": "a"}
    assert "Insufficient cpu" in (await space.refused("rival"))["message"]


async def test_polite_pods_wait(space, start, classes):
    await space.node("a", "2")
    start()
    await space.pod("sitting", {"cpu": "2"}, priorityClassName="low")
    await space.bound("sitting")
    await space.pod("polite", {"cpu": "2"}, priorityClassName="polite")
    message = (await space.refused("polite"))["message"]
    assert message.endswith("preemption: not eligible due to preemptionPolicy=Never.")
    assert await space.node_of("sitting") == "a"


async def test_a_budget_decides_between_victims(space, start, classes):
    await space.node("a", "2")
    await space.node("b", "2")
    start()
    await space.client.create(
        PODDISRUPTIONBUDGETS,
        {"metadata": {"name": "keep"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "db"}}}},
        space.namespace,
    )
    for name, labels in (("db", {"app": "db"}), ("web", {"app": "web"})):
        pod = {
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "schedulerName": "nodewright",
                "priorityClassName": "low",
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "none:1", "resources": {"requests": {"cpu": "2"}}}],
            },
        }
        await space.client.create(PODS, pod, space.namespace)
    places = await space.bound("db", "web")
    await space.pod("urgent", {"cpu": "2"}, priorityClassName="high")
    await gone(space, "web")
    assert await space.bound("urgent") == {"urgent": places["web"]}
    assert await space.node_of("db") == places["db"]
