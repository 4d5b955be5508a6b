"""Rollouts that are held back, stopped and taken back, against the real API server."""

import asyncio
import contextlib

import pytest

from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import APPS_DAEMONSETS, CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS
from nodewright.kube.times import now_rfc3339

pytestmark = pytest.mark.needs_cluster


def rolling(**fields):
    return {"updateStrategy": {"rollingUpdate": fields}}


def condition(world, type_, name="ds"):
    found = next((c for c in world.status(name).get("conditions") or [] if c["type"] == type_), {})
    fresh = found.get("observedGeneration") == world.ds(name)["metadata"]["generation"]
    return (found["status"], found["reason"]) if found and fresh else None


async def up(world, count=3, **spec):
    """A DaemonSet that is rolled out on so many nodes."""
    nodes = [await world.add_node(f"n{i}") for i in range(count)]
    await world.create(**spec)
    await world.until(lambda: len(world.pods()) == count)
    await world.make_all_ready()
    await world.until(lambda: condition(world, "Progressing") == ("True", "NewRevisionAvailable"))
    return nodes


async def patch(world, patch, name="ds"):
    await world.client.patch(DAEMONSETS, name, patch, world.namespace)


async def annotate(world, name, value):
    await patch(world, {"metadata": {"annotations": {f"nodewright.dev/{name}": value}}})


async def break_pod(world, pod, reason="ImagePullBackOff"):
    """As a kubelet reports a container that can't start."""
    statuses = [
        {
            "name": "c",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": reason}},
        }
    ]
    conditions = [{"type": "Ready", "status": "False", "lastTransitionTime": now_rfc3339()}]
    body = {
        "metadata": {"uid": pod["metadata"]["uid"]},
        "status": {"phase": "Pending", "conditions": conditions, "containerStatuses": statuses},
    }
    await world.client.patch(PODS, pod["metadata"]["name"], body, world.namespace, subresource="status")


@pytest.fixture
async def kubelet(world):
    """Starts a kubelet for all nodes: pods get ready when they appear, those of broken images say why not."""
    tasks = []

    async def tend(pod, broken):
        with contextlib.suppress(NotFound):
            if pod["spec"]["containers"][0]["image"] in broken:
                await break_pod(world, pod)
            else:
                await world.set_status(pod)

    def start(broken=()):
        def on_change(old, new):
            if old is None and new is not None:
                tasks.append(asyncio.create_task(tend(new, broken)))

        world.on_pods(on_change)

    yield start
    await asyncio.gather(*tasks)


def on(world, image):
    return sorted(node for node, found in world.images().items() if found == image)


async def settled(world, image, nodes):
    """Wait until just these nodes have an available pod of the image, and the status says so."""

    def is_so():
        pods = world.pods()
        return (
            on(world, image) == nodes
            and all(map(world.is_ready, pods))
            and world.observed()
            and world.status().get("updatedNumberScheduled") == len(nodes)
            and world.status().get("numberAvailable") == world.status().get("desiredNumberScheduled")
        )

    await world.until(is_so)


async def test_a_paused_rollout_stands_still_and_keeps_the_old_template(world, operator, kubelet):
    nodes = await up(world)
    kubelet()
    await patch(world, {"spec": {"paused": True}})
    await world.set_image("v2")
    await world.until(lambda: condition(world, "Progressing") == ("Unknown", "DaemonSetPaused"))
    first = world.pods_by_node()[nodes[0]]["metadata"]["name"]
    await world.client.delete(PODS, first, world.namespace)
    await world.until(lambda: (p := world.pods_by_node().get(nodes[0])) and p["metadata"]["name"] != first)
    assert set(world.images().values()) == {"v1"}
    await patch(world, {"spec": {"paused": False}})
    await settled(world, "v2", nodes)
    await world.until(lambda: world.events("RolloutComplete"))


async def test_a_partition_and_a_canary(world, operator, kubelet):
    nodes = await up(world, 4, **rolling(partition=3, maxUnavailable="100%"))
    kubelet()
    await world.set_image("v2")
    await settled(world, "v2", nodes[:1])
    await world.until(lambda: condition(world, "Progressing") == ("True", "RolloutHeld"))
    assert world.status()["currentRevision"] != world.status()["updateRevision"]
    strategy = {"rollingUpdate": {"partition": None, "nodeSelector": {"matchLabels": {"canary": "yes"}}}}
    await patch(world, {"spec": {"updateStrategy": strategy}})
    await world.client.patch(NODES, nodes[3], {"metadata": {"labels": {"canary": "yes"}}})
    await settled(world, "v2", [nodes[0], nodes[3]])
    await patch(world, {"spec": {"updateStrategy": {"rollingUpdate": {"nodeSelector": None}}}})
    await settled(world, "v2", nodes)
    await world.until(lambda: world.status()["currentRevision"] == world.status()["updateRevision"])


async def test_steps_wait_for_time_and_people_also_over_a_restart(world, start_operator, kubelet):
    first = await start_operator()
    steps = [{"nodes": 1, "waitSeconds": 1}, {"nodes": 1, "waitForResume": True}]
    nodes = await up(world, 4, **rolling(steps=steps, maxUnavailable="100%"))
    kubelet()
    await world.set_image("v2")
    await settled(world, "v2", nodes[:2])
    await world.until(lambda: condition(world, "Progressing") == ("True", "WaitingForStep"))
    assert (world.status()["rollout"]["step"], bool(world.status()["rollout"]["stepReadyTime"])) == (1, True)
    before = {p["metadata"]["uid"] for p in world.pods()}
    log = len(world.log)
    await first.stop()
    await start_operator()
    await annotate(world, "resumed-step", f"{world.status()['updateRevision']}/1")  # the step before: nothing happens
    await world.client.patch(NODES, nodes[0], {"metadata": {"labels": {"any": "thing"}}})
    await patch(world, {"spec": {"minReadySeconds": 0, "revisionHistoryLimit": 5}})
    await world.until(lambda: world.observed())
    assert {p["metadata"]["uid"] for p in world.pods()} == before
    assert not [entry for entry in world.log[log:] if entry[0] == "Pod" and entry[1] != "modified"]
    await annotate(world, "resumed-step", f"{world.status()['updateRevision']}/2")
    await settled(world, "v2", nodes)
    await world.until(lambda: world.status()["currentRevision"] == world.status()["updateRevision"])
    await world.until(lambda: world.events("RolloutComplete"))
    update = world.status()["updateRevision"]
    assert [message for _, _, message in sorted(world.events("RolloutStepReady"))] == [
        f'Step {number} of 2 of revision "{update}" is ready.' for number in (1, 2)
    ]


async def test_a_step_by_selector_with_a_readiness_budget(world, operator):
    labels = {"matchLabels": {"zone": "a"}}
    steps = [{"nodeSelector": labels, "minAvailable": "50%"}]
    nodes = await up(world, 4, **rolling(steps=steps, maxUnavailable="100%"))
    for node in nodes[2:]:
        await world.client.patch(NODES, node, {"metadata": {"labels": {"zone": "a"}}})
    await world.set_image("v2")
    await world.until(lambda: on(world, "v2") == nodes[2:])
    assert on(world, "v1") == nodes[:2]
    await world.set_status(world.pods_by_node()[nodes[3]])
    await world.until(lambda: on(world, "v2") == nodes)


async def test_failures_stop_the_rollout_until_a_person_goes_on(world, operator, kubelet):
    nodes = await up(world, 4, **rolling(maxFailed=1, maxUnavailable=2))
    kubelet(broken={"bad"})
    await world.set_image("bad")
    await world.until(lambda: condition(world, "Progressing") == ("False", "RolloutFailed"))
    status = world.status()
    assert status["rollout"]["failedRevision"] == status["updateRevision"]
    assert status["rollout"]["failedNodes"] == 2
    assert condition(world, "Degraded") == ("True", "PodsFailing")
    assert on(world, "bad") == nodes[:2]
    ((kind, _, message),) = await world.until(lambda: world.events("RolloutFailed"))
    why = status["rollout"]["failure"]
    assert why.startswith("2 of 4 nodes: ")
    assert nodes[0] in why
    expected = f'Pods of revision "{status["updateRevision"]}" fail on more nodes than maxFailed allows ({why}).'
    assert (kind, message) == ("Warning", expected)
    # What is missing is made from the template that worked.
    await world.client.delete(PODS, world.pods_by_node()[nodes[0]]["metadata"]["name"], world.namespace)
    await world.until(lambda: on(world, "v1") == [nodes[0], nodes[2], nodes[3]])
    await patch(
        world,
        {
            "metadata": {"annotations": {"nodewright.dev/resumed-failures": status["updateRevision"]}},
            "spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 4}}},
        },
    )
    await world.until(lambda: on(world, "bad") == nodes)
    await world.until(lambda: world.status()["rollout"]["failedRevision"] == "")


async def test_failures_take_the_rollout_back(world, operator, kubelet):
    nodes = await up(world, 4, **rolling(maxFailed=0, maxUnavailable=1, onFailure="Rollback"))
    kubelet(broken={"bad"})
    stable = world.status()["currentRevision"]
    await world.set_image("bad")
    await world.until(lambda: condition(world, "Degraded") == ("True", "RolledBack"))
    failed = world.status()["updateRevision"]
    await world.until(lambda: on(world, "v1") == nodes and world.status()["numberAvailable"] == 4)
    status = world.status()
    assert (status["currentRevision"], status["updateRevision"]) == (stable, failed)
    assert world.ds()["spec"]["template"]["spec"]["containers"][0]["image"] == "bad"
    assert condition(world, "Progressing") == ("False", "RolloutFailed")
    ((kind, _, message),) = await world.until(lambda: world.events("RolloutRolledBack"))
    assert kind == "Warning"
    assert message.endswith(f'the DaemonSet goes back to revision "{stable}".')
    deleted = [entry for entry in world.log if entry[0] == "Pod" and entry[1] == "deleted"]
    assert len(deleted) == 2, "one that went for the new template, and that one's successor"
    await world.set_image("v3")
    await settled(world, "v3", nodes)
    assert condition(world, "Degraded") == ("False", "AsExpected")


async def test_unavailable_old_pods_within_the_budget(world, operator):
    nodes = [await world.add_node(f"n{i}") for i in range(3)]
    await world.create(**rolling(unavailablePods="WithinBudget", maxUnavailable=1))
    await world.until(lambda: len(world.pods()) == 3)
    await world.set_image("v2")
    await world.until(lambda: on(world, "v2") == nodes[:1])
    await world.until(lambda: world.observed() and world.status().get("updatedNumberScheduled") == 1)
    await world.set_status(world.pods_by_node()[nodes[0]])
    await world.until(lambda: on(world, "v2") == nodes[:2])


async def test_the_progress_deadline(world, operator):
    nodes = await up(world, 2, progressDeadlineSeconds=2)
    await world.set_image("v2")
    await world.until(lambda: condition(world, "Progressing") == ("True", "RollingOut"))
    await world.until(lambda: condition(world, "Progressing") == ("False", "ProgressDeadlineExceeded"))
    assert on(world, "v2") == nodes[:1]
    await world.until(lambda: condition(world, "Degraded") == ("True", "PodsFailing"))
    await world.make_all_ready()
    await world.until(lambda: condition(world, "Progressing") == ("True", "RollingOut"))
    await world.until(lambda: on(world, "v2") == nodes)
    await world.make_all_ready()
    await world.until(lambda: condition(world, "Progressing") == ("True", "NewRevisionAvailable"))
    await world.until(lambda: condition(world, "Degraded") == ("False", "AsExpected"))


async def test_apps_v1_can_be_paused_and_shows_nothing_else_of_ours(world, start_operator, kubelet):
    await start_operator((AppsDaemonSetController,))
    nodes = [await world.add_node(f"n{i}") for i in range(2)]
    manifest = {**world.manifest("theirs"), "apiVersion": "apps/v1"}
    await world.client.create(APPS_DAEMONSETS, manifest, world.namespace)

    async def change(body):
        await world.client.patch(APPS_DAEMONSETS, "theirs", body, world.namespace)

    try:
        kubelet()
        await world.until(lambda: on(world, "v1") == nodes)
        template = {"spec": {"containers": [{"name": "c", "image": "v2"}]}}
        await change({"metadata": {"annotations": {"nodewright.dev/paused": "true"}}, "spec": {"template": template}})
        await world.until(lambda: len(world.all(CONTROLLERREVISIONS)) == 2)
        first = world.pods_by_node()[nodes[0]]["metadata"]["name"]
        await world.client.delete(PODS, first, world.namespace)
        await world.until(lambda: (p := world.pods_by_node().get(nodes[0])) and p["metadata"]["name"] != first)
        assert on(world, "v1") == nodes
        await change({"metadata": {"annotations": {"nodewright.dev/paused": None}}})
        await world.until(lambda: on(world, "v2") == nodes)
        found = await world.client.get(APPS_DAEMONSETS, "theirs", world.namespace, type=dict)
        assert not found["status"].keys() & {"conditions", "rollout", "currentRevision", "updateRevision"}
        assert {reason for _, reason, _ in world.events()} <= {"SuccessfulCreate", "SuccessfulDelete"}
    finally:
        await world.client.delete(APPS_DAEMONSETS, "theirs", world.namespace)
