"""The metrics of a scheduler at work, as a scrape sees them."""

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nodewright.kube.resources import NODES

from .conftest import eventually

pytestmark = pytest.mark.needs_cluster

# The registry is the process's: other tests have counted there under other names.
NAME = "metrics-test"


async def samples(process, path="/metrics"):
    assert process.health is not None, "not started yet"
    url = f"http://127.0.0.1:{process.health.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        text = await answer.text()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(found, name, **labels):
    return found.get((f"scheduler_{name}", tuple(sorted(labels.items()))), 0.0)


async def test_what_a_scrape_tells(space, start):
    for name in ("a", "b"):
        await space.node(name, "1")
    process = start(metrics_port=0, scheduler_names=[NAME])
    before = await eventually(lambda: samples(process))
    names = [f"p{number}" for number in range(10)]
    for name in names:
        await space.pod(name, {"cpu": "100m"}, schedulerName=NAME)
    await space.bound(*names)
    await space.pod("big", {"cpu": "5"}, schedulerName=NAME)
    await space.pod("picky", nodeSelector={"disk": "ssd"}, schedulerName=NAME)
    await space.pod("gated", schedulerName=NAME, schedulingGates=[{"name": "example.com/wait"}])
    await space.refused("big")
    await space.refused("picky")

    async def settled():
        found = await samples(process)
        return found if value(found, "pending_pods", queue="gated") else None

    found = await eventually(settled)
    assert value(found, "schedule_attempts_total", result="scheduled", profile=NAME) == 10
    assert value(found, "schedule_attempts_total", result="unschedulable", profile=NAME) == 2
    assert value(found, "scheduling_attempt_duration_seconds_count", result="scheduled", profile=NAME) == 10
    for point in ("Filter", "Score", "Bind"):
        labels = {"extension_point": point, "status": "Success", "profile": NAME}
        assert value(found, "framework_extension_point_duration_seconds_count", **labels) == 10
    assert (
        value(found, "plugin_evaluation_total", plugin="NodeResourcesFit", extension_point="Filter", profile=NAME) > 0
    )
    rejecting = {"NodeResourcesFit": 1, "NodeAffinity": 1, "SchedulingGates": 1}
    for plugin, count in rejecting.items():
        assert value(found, "unschedulable_pods", plugin=plugin, profile=NAME) == count
    waiting = {queue: value(found, "pending_pods", queue=queue) for queue in ("active", "unschedulable", "gated")}
    assert waiting == {"active": 0, "unschedulable": 2, "gated": 1}
    assert value(found, "cache_size", type="nodes") == 2
    assert value(found, "cache_size", type="pods") == 10

    def grown(name, **labels):
        return value(found, name, **labels) - value(before, name, **labels)

    assert grown("queue_incoming_pods_total", queue="active", event="UnschedulablePodAdd") == 12
    assert grown("queue_incoming_pods_total", queue="unschedulable", event="UnschedulablePodAdd") == 1
    assert grown("queue_incoming_pods_total", queue="unschedulable", event="ScheduleAttemptFailure") == 2
    assert grown("event_handling_duration_seconds_count", event="AssignedPodAdd") == 10
    assert grown("pod_scheduling_sli_duration_seconds_count", attempts="1") == 10
    assert grown("preemption_attempts_total") == 2

    await space.client.patch(NODES, "a", {"metadata": {"labels": {"disk": "ssd"}}})
    await space.bound("picky")
    found = await samples(process)
    assert value(found, "unschedulable_pods", plugin="NodeAffinity", profile=NAME) == 0
    resources = await samples(process, "/metrics/resources")
    cpus = [amount for (_, labels), amount in resources.items() if dict(labels)["resource"] == "cpu"]
    assert sorted(cpus) == [0.1] * 10 + [5]
