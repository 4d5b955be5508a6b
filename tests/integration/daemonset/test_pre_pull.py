"""prePull against the real API server; the test pulls images as nodes would."""

import contextlib

import pytest

from nodewright.kube.errors import NotFound
from nodewright.kube.resources import DAEMONSETS, PODS

pytestmark = pytest.mark.needs_cluster

OF = "nodewright.dev/pre-pull-of"


def strategy(parallel=5, **more):
    return {"rollingUpdate": {"maxUnavailable": 1, "prePull": {"maxParallel": parallel}, **more}}


def node_of(pod):
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]


def pullers(world):
    return {node_of(pod): pod for pod in world.pods() if OF in pod["metadata"]["labels"]}


def images(world):
    return {node_of(p): p["spec"]["containers"][0]["image"] for p in world.pods() if OF not in p["metadata"]["labels"]}


async def make_ready(world):
    for pod in world.pods():
        if OF not in pod["metadata"]["labels"] and not world.is_ready(pod):
            await world.set_status(pod)


async def report(world, puller, *, pulled=True):
    """What a node writes of a puller whose image is there, or can't be pulled."""
    status = {"name": "image-0", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    if pulled:
        end = {"exitCode": 128, "reason": "StartError"}
        status |= {"imageID": "sha256:1", "state": {"terminated": end}}
    else:
        status["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    patch = {"status": {"phase": "Failed" if pulled else "Pending", "containerStatuses": [status]}}
    with contextlib.suppress(NotFound):
        await world.client.patch(PODS, puller["metadata"]["name"], patch, world.namespace, subresource="status")


async def start(world, count=3, **rolling):
    nodes = [await world.add_node(f"n{i}") for i in range(count)]
    await world.create(updateStrategy=strategy(**rolling))
    await world.until(lambda: len(images(world)) == count)
    await make_ready(world)
    await world.until(lambda: world.condition().get("status") == "True")
    assert pullers(world) == {}
    return nodes


async def test_an_old_pod_goes_after_the_images_are_there(world, operator):
    one, two, three = await start(world, parallel=2)
    await world.set_image("v2")
    await world.until(lambda: set(pullers(world)) == {one, two})
    made = pullers(world)[one]
    assert [(c["image"], c["command"]) for c in made["spec"]["containers"]] == [("v2", ["true"])]
    assert made["metadata"]["ownerReferences"][0]["uid"] == world.ds()["metadata"]["uid"]
    await world.until(lambda: world.observed() and world.status().get("updatedNumberScheduled") == 0)
    assert images(world) == dict.fromkeys((one, two, three), "v1")

    await report(world, pullers(world)[two])
    await world.until(lambda: images(world) == {one: "v1", two: "v2", three: "v1"})
    await world.until(lambda: set(pullers(world)) == {one, three})  # the next pulls, and a done puller goes
    await make_ready(world)
    for node in (one, three):
        await report(world, pullers(world)[node])
        await world.until(lambda node=node: images(world).get(node) == "v2")
        await make_ready(world)
    await world.until(lambda: world.observed() and world.condition().get("status") == "True")
    await world.until(lambda: pullers(world) == {})


async def test_a_pull_that_fails_touches_no_pod_and_is_told_once(world, operator):
    one, two = await start(world, 2, parallel=1)
    before = images(world)
    await world.set_image("bad")
    await world.until(lambda: set(pullers(world)) == {one})
    await report(world, pullers(world)[one], pulled=False)
    await world.until(lambda: set(pullers(world)) == {one, two})  # it takes no other's turn
    await report(world, pullers(world)[two], pulled=False)
    texts = await world.until(lambda: len(found := world.events("PrePullFailed")) == 2 and found)
    revision = world.status()["updateRevision"]
    assert sorted(texts) == [
        (
            "Warning",
            "PrePullFailed",
            f"Images of revision {revision} can't be pulled on node {node}: ImagePullBackOff: no such image",
        )
        for node in (one, two)
    ]
    assert images(world) == before
    await world.set_image("v3")
    await world.until(lambda: set(pullers(world)) == {one} and "v3" in str(pullers(world)[one]["spec"]))
    await report(world, pullers(world)[one])
    await world.until(lambda: images(world).get(one) == "v3")


async def test_a_puller_that_was_refused_is_made_anew(world, operator):
    (node,) = await start(world, 1)
    await world.set_image("v2")
    await world.until(lambda: set(pullers(world)) == {node})
    first = pullers(world)[node]["metadata"]["uid"]
    patch = {"status": {"phase": "Failed", "reason": "OutOfcpu"}}
    name = pullers(world)[node]["metadata"]["name"]
    await world.client.patch(PODS, name, patch, world.namespace, subresource="status")
    await world.until(lambda: (p := pullers(world).get(node)) and p["metadata"]["uid"] != first)
    assert images(world) == {node: "v1"}
    await report(world, pullers(world)[node])
    await world.until(lambda: images(world) == {node: "v2"})


async def test_a_selector_that_would_match_them_takes_no_pullers(world, operator):
    node = await world.add_node("n")
    manifest = world.manifest(updateStrategy=strategy())
    manifest["spec"]["selector"] = {"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]}
    await world.client.create(DAEMONSETS, manifest, world.namespace)
    await world.until(lambda: images(world) == {node: "v1"})
    await make_ready(world)
    await world.set_image("v2")
    await world.until(lambda: set(pullers(world)) == {node})
    await report(world, pullers(world)[node])
    await world.until(lambda: images(world) == {node: "v2"})
    await make_ready(world)
    await world.until(lambda: world.observed() and world.condition().get("status") == "True")
    assert world.status()["currentNumberScheduled"] == 1


async def test_a_restarted_controller_makes_no_second_pullers(world, start_operator):
    first = await start_operator()
    nodes = await start(world, 2)
    await world.set_image("v2")
    await world.until(lambda: set(pullers(world)) == set(nodes))
    before = {pod["metadata"]["uid"] for pod in pullers(world).values()}
    await first.stop()
    await start_operator()
    await report(world, pullers(world)[nodes[0]])
    await world.until(lambda: images(world).get(nodes[0]) == "v2")
    assert pullers(world)[nodes[1]]["metadata"]["uid"] in before
    made = [name for kind, what, name in world.log if kind == "Pod" and what == "added" and "prepull" in name]
    assert len(made) == 2


async def test_without_pre_pull_left_in_the_spec_the_pullers_go(world, operator):
    (node,) = await start(world, 1)
    await world.set_image("v2")
    await world.until(lambda: set(pullers(world)) == {node})
    patch = {"spec": {"updateStrategy": {"rollingUpdate": {"prePull": None}}}}
    await world.client.patch(DAEMONSETS, "ds", patch, world.namespace)
    await world.until(lambda: images(world) == {node: "v2"} and pullers(world) == {})
