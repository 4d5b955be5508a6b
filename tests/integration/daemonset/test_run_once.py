"""spec.runOnce against the real API server: one run per node to its end, and again for another template."""

import asyncio

import pytest

from nodewright.kube.resources import DAEMONSETS, PODS

pytestmark = pytest.mark.needs_cluster


def manifest(world, **spec):
    made = world.manifest(runOnce=True, **spec)
    made["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    return made


async def create(world, **spec):
    await world.client.create(DAEMONSETS, manifest(world, **spec), world.namespace)


def phases(world):
    return {node: pod["status"]["phase"] for node, pod in world.pods_by_node().items()}


async def end(world, node, phase="Succeeded"):
    await world.set_status(world.pods_by_node()[node], phase=phase, ready=False)


async def test_a_run_to_its_end_is_all_that_is_wanted(world, operator):
    one, two = await world.add_node("one"), await world.add_node("two")
    await create(world)
    await world.until(lambda: set(phases(world)) == {one, two})
    await world.make_all_ready()
    await world.until(lambda: world.status().get("currentNumberScheduled") == 2)
    assert world.condition()["reason"] == "PodsUnavailable"
    await end(world, one)
    await world.until(lambda: world.status().get("numberAvailable") == 1)
    await end(world, two)
    await world.until(lambda: world.condition().get("status") == "True")
    assert world.condition()["message"] == "all 2 pods are current and available"
    status = world.status()
    assert status["numberReady"] == status["numberAvailable"] == status["updatedNumberScheduled"] == 2
    assert status["currentRevision"] == status["updateRevision"]
    three = await world.add_node("three")
    await world.until(lambda: set(phases(world)) == {one, two, three})
    await end(world, three)
    await world.until(lambda: world.status().get("numberAvailable") == 3)
    assert not [entry for entry in world.log if entry[0] == "Pod" and entry[1] == "deleted"]


async def test_another_template_runs_again_on_so_many_nodes_at_a_time(world, operator):
    nodes = [await world.add_node(f"n{i}") for i in range(4)]
    await create(world, updateStrategy={"rollingUpdate": {"maxUnavailable": 2}})
    await world.until(lambda: sorted(phases(world)) == nodes)
    for node in nodes:
        await end(world, node)
    await world.until(lambda: world.condition().get("status") == "True")
    await world.set_image("v2")
    most = 0
    while world.images() != dict.fromkeys(nodes, "v2") or set(phases(world).values()) != {"Succeeded"}:
        world.changed.clear()
        running = [node for node, phase in phases(world).items() if phase != "Succeeded"]
        most = max(most, len(running))
        if len(running) == 2 or (running and set(world.images().values()) == {"v2"}):
            await end(world, running[0])
        async with asyncio.timeout(15):
            await world.changed.wait()
    assert most == 2
    assert phases(world) == dict.fromkeys(nodes, "Succeeded")
    assert world.images() == dict.fromkeys(nodes, "v2")


async def test_a_failed_run_is_made_anew(world, operator):
    node = await world.add_node("n")
    await create(world)
    await world.until(lambda: set(phases(world)) == {node})
    first = world.pods_by_node()[node]["metadata"]["uid"]
    await end(world, node, "Failed")
    await world.until(lambda: (p := world.pods_by_node().get(node)) and p["metadata"]["uid"] != first)
    await end(world, node)
    await world.until(lambda: world.condition().get("status") == "True")
    assert world.events("FailedDaemonPod")


async def test_a_record_that_somebody_deletes_is_a_run_that_is_missing(world, operator):
    node = await world.add_node("n")
    await create(world)
    await world.until(lambda: set(phases(world)) == {node})
    await end(world, node)
    await world.until(lambda: world.condition().get("status") == "True")
    await world.client.delete(PODS, world.pods_by_node()[node]["metadata"]["name"], world.namespace)
    await world.until(lambda: phases(world) == {node: "Pending"})
