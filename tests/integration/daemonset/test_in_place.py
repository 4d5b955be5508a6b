"""podUpdate InPlaceIfPossible against the real API server; the test restarts containers as a node would."""

import contextlib

import pytest

from nodewright.kube.client import PatchType
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import DAEMONSETS, PODS
from nodewright.kube.times import now_rfc3339

pytestmark = pytest.mark.needs_cluster

IN_PLACE = {"rollingUpdate": {"maxUnavailable": 1, "podUpdate": "InPlaceIfPossible"}}
NOTE = "nodewright.dev/in-place-update"


async def report(world, pod, restarts, *, waiting=None):
    """What a node writes of a pod whose container runs, or waits for that reason."""
    now = now_rfc3339()
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {"startedAt": now}}
    container = {"name": "c", "image": "x", "imageID": "x", "ready": not waiting, "restartCount": restarts}
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(not waiting), "lastTransitionTime": now}],
        "containerStatuses": [{**container, "state": state}],
    }
    patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
    with contextlib.suppress(NotFound):
        await world.client.patch(PODS, pod["metadata"]["name"], patch, world.namespace, subresource="status")


def uids(world):
    return {node: pod["metadata"]["uid"] for node, pod in world.pods_by_node().items()}


async def start(world, count=3, **spec):
    nodes = [await world.add_node(f"n{i}") for i in range(count)]
    await world.create(**{"updateStrategy": IN_PLACE, **spec})
    await world.until(lambda: len(world.pods()) == count)
    for pod in world.pods():
        await report(world, pod, 0)
    await world.until(lambda: world.condition().get("status") == "True")
    return nodes


async def test_pods_stay_and_get_their_image_one_after_the_other(world, operator):
    nodes = await start(world)
    before = uids(world)
    await world.set_image("v2")
    for number, node in enumerate(nodes, 1):
        await world.until(lambda number=number: sorted(world.images().values()).count("v2") == number)
        await world.until(lambda: world.observed() and world.status().get("numberAvailable") == 2)
        pod = world.pods_by_node()[node]
        assert pod["metadata"]["annotations"][NOTE] == '{"c":0}'
        assert pod["spec"]["containers"][0]["image"] == "v2"
        await report(world, pod, 1)
    await world.until(lambda: world.observed() and world.condition().get("status") == "True")
    assert uids(world) == before
    hashes = {pod["metadata"]["labels"]["controller-revision-hash"] for pod in world.pods()}
    assert hashes == {world.status()["updateRevision"]} == {world.status()["currentRevision"]}
    events = await world.until(lambda: len(found := world.events("SuccessfulUpdate")) == 3 and found)
    assert {text for _, _, text in events} == {
        f"Updated pod in place: {pod['metadata']['name']}" for pod in world.pods()
    }
    assert not [entry for entry in world.log if entry[0] == "Pod" and entry[1] == "deleted"]


async def test_a_ready_condition_from_before_the_restart_does_not_count(world, operator):
    (node,) = await start(world, 1)
    await world.set_image("v2")
    await world.until(lambda: world.images() == {node: "v2"})
    await report(world, world.pods_by_node()[node], 0)  # ready, as the node has not begun
    await world.until(lambda: world.observed() and world.status().get("numberReady") == 0)
    assert world.status()["updatedNumberScheduled"] == 1
    assert world.condition()["reason"] == "PodsUnavailable"
    await report(world, world.pods_by_node()[node], 1)
    await world.until(lambda: world.condition().get("status") == "True")


async def test_a_bad_image_is_repaired_by_the_next_template(world, operator):
    one, two = await start(world, 2)
    before = uids(world)
    await world.set_image("bad")
    await world.until(lambda: sorted(world.images().values()) == ["bad", "v1"])
    await report(world, world.pods_by_node()[one], 0, waiting="ImagePullBackOff")
    await world.until(lambda: world.status().get("numberReady") == 1)
    await world.set_image("v3")
    await world.until(lambda: world.images().get(one) == "v3" and uids(world)[one] != before[one])
    await report(world, world.pods_by_node()[one], 0)
    await world.until(lambda: world.images().get(two) == "v3")
    await report(world, world.pods_by_node()[two], 1)
    await world.until(lambda: world.observed() and world.condition().get("status") == "True")
    assert uids(world)[two] == before[two]


async def test_more_than_an_image_replaces_the_pod(world, operator):
    (node,) = await start(world, 1)
    before = uids(world)
    patch = [{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["x"]}]
    await world.client.patch(DAEMONSETS, "ds", patch, world.namespace, kind=PatchType.JSON)
    await world.until(lambda: (now := uids(world)) and now != before)
    assert "annotations" not in world.pods_by_node()[node]["metadata"]


async def test_a_pod_that_may_not_be_updated_is_replaced(world, operator, no_pod_updates):
    (node,) = await start(world, 1)
    before = uids(world)
    await no_pod_updates(world.namespace)
    await world.set_image("v2")
    await world.until(lambda: world.images() == {node: "v2"} and uids(world) != before)
    ((kind, _, text), *_) = await world.until(lambda: world.events("FailedUpdate"))
    assert kind == "Warning"
    assert text.startswith("Error updating pod in place, it is replaced: ")
    assert "images are not to be changed" in text


@pytest.fixture
async def no_pod_updates(client):
    """Start to refuse changes of images in a namespace, as a policy of the cluster may."""
    from nodewright.kube.resources import Resource

    made = []
    kinds = {
        plural: Resource("admissionregistration.k8s.io", "v1", plural, kind, namespaced=False)
        for plural, kind in (
            ("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
            ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
        )
    }
    policies, bindings = kinds.values()

    async def refuse(namespace):
        name = f"images-{namespace}"
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}
        validation = {
            "expression": "object.spec.containers.all(c, oldObject.spec.containers.exists(o, o.image == c.image))",
            "message": "images are not to be changed",
        }
        spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation]}
        await client.create(policies, {"metadata": {"name": name}, "spec": spec})
        made.append((policies, name))
        only_here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": only_here}
        await client.create(bindings, {"metadata": {"name": name}, "spec": binding})
        made.append((bindings, name))
        await _in_force(client, namespace)

    yield refuse
    for resource, name in reversed(made):
        await client.delete(resource, name)


async def _in_force(client, namespace):
    """The API server takes up a policy some time after it was stored: ask it by a change that is never made."""
    import asyncio

    from nodewright.kube.errors import Invalid

    (pod, *_) = (await client.list(PODS, namespace, type=dict)).items
    path = PODS.path(namespace, pod["metadata"]["name"])
    body = b'{"spec":{"containers":[{"name":"c","image":"never"}]}}'
    async with asyncio.timeout(30):
        while True:
            try:
                await client.request(
                    "PATCH", path, params={"dryRun": "All"}, body=body, content_type=PatchType.STRATEGIC.value
                )
            except Invalid:
                return
            await asyncio.sleep(0.2)
