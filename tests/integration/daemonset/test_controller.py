"""The DaemonSet controller against the real API server (scenarios of upstream's test/integration/daemonset)."""

import asyncio

import pytest

from nodewright.kube.client import PatchType
from nodewright.kube.resources import CONFIGMAPS, CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS

pytestmark = pytest.mark.needs_cluster


async def test_one_pod_per_eligible_node(world, operator):
    good = [await world.add_node(f"n{i}") for i in range(3)]
    await world.add_node("tainted", taints=("dedicated:NoSchedule",))
    await world.create(labels={"extra": "x"})
    await world.until(lambda: len(world.pods_by_node()) == 3)
    assert sorted(world.pods_by_node()) == good
    pod = world.pods()[0]
    (revision,) = world.all(CONTROLLERREVISIONS)
    meta = pod["metadata"]
    assert meta["generateName"] == "ds-"
    assert meta["labels"] == {
        "app": "ds",
        "extra": "x",
        "controller-revision-hash": revision["metadata"]["labels"]["controller-revision-hash"],
    }
    (owner,) = meta["ownerReferences"]
    assert owner == {
        "apiVersion": "nodewright.dev/v1alpha1",
        "kind": "DaemonSet",
        "name": "ds",
        "uid": world.ds()["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    await world.until(lambda: world.status().get("currentNumberScheduled") == 3)
    assert world.condition()["reason"] == "PodsUnavailable"
    await world.make_all_ready()
    await world.until(lambda: world.condition().get("status") == "True")
    status = dict(world.status())
    for own in ("conditions", "currentRevision", "updateRevision", "rollout"):
        del status[own]
    assert status == {
        "observedGeneration": 1,
        "desiredNumberScheduled": 3,
        "currentNumberScheduled": 3,
        "updatedNumberScheduled": 3,
        "numberReady": 3,
        "numberAvailable": 3,
        "numberMisscheduled": 0,
        "numberUnavailable": 0,
    }
    created = await world.until(lambda: len(found := world.events("SuccessfulCreate")) == 3 and found)
    assert {e[2] for e in created} == {f"Created pod: {p['metadata']['name']}" for p in world.pods()}
    assert not [entry for entry in world.log if entry[0] == "Pod" and entry[1] == "deleted"]


async def test_nodes_come_change_and_go(world, operator):
    one, two = await world.add_node("one"), await world.add_node("two")
    await world.create()
    await world.until(lambda: set(world.pods_by_node()) == {one, two})
    three = await world.add_node("three")
    await world.until(lambda: set(world.pods_by_node()) == {one, two, three})
    await world.taint(one, "broken:NoSchedule")  # may stay
    await world.until(lambda: world.status().get("numberMisscheduled") == 1)
    await world.taint(two, "broken:NoExecute")  # must leave
    await world.until(lambda: set(world.pods_by_node()) == {one, three})
    await world.taint(two)
    await world.until(lambda: set(world.pods_by_node()) == {one, two, three})
    await world.client.patch(NODES, three, {"metadata": {"labels": {"test": "elsewhere"}}})
    await world.until(lambda: set(world.pods_by_node()) == {one, two})
    await world.client.delete(NODES, two)  # its pod was never bound: nobody else would clean up
    await world.until(lambda: set(world.pods_by_node()) == {one})


async def test_rolling_update_and_rollback(world, operator):
    nodes = [await world.add_node(f"n{i}") for i in range(4)]
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    await world.create(updateStrategy=rolling)
    await world.until(lambda: len(world.pods()) == 4)
    await world.make_all_ready()
    await world.until(lambda: world.condition().get("status") == "True")
    lowest = 4

    async def roll(image):
        nonlocal lowest
        await world.set_image(image)
        while set(world.images().values()) != {image} or len(world.pods()) != 4:
            world.changed.clear()
            lowest = min(lowest, sum(map(world.is_ready, world.pods())))
            fresh = [p for p in world.pods() if not world.is_ready(p)]
            if len(fresh) == 2 or (fresh and set(world.images().values()) == {image}):
                for pod in fresh:
                    await world.set_status(pod)
            async with asyncio.timeout(15):
                await world.changed.wait()
        await world.make_all_ready()
        await world.until(lambda: world.observed() and world.condition().get("status") == "True")

    await roll("v2")
    assert lowest == 2
    assert sorted(world.images()) == nodes
    first, second = sorted(world.all(CONTROLLERREVISIONS), key=lambda r: r["revision"])
    assert (first["revision"], second["revision"]) == (1, 2)
    before = first["metadata"]["uid"]
    await roll("v1")
    assert sorted(r["revision"] for r in world.all(CONTROLLERREVISIONS)) == [2, 3]
    assert next(r for r in world.all(CONTROLLERREVISIONS) if r["revision"] == 3)["metadata"]["uid"] == before


async def test_surge_starts_new_pods_first(world, operator):
    node = await world.add_node("n")
    await world.create(updateStrategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
    await world.until(lambda: len(world.pods()) == 1)
    await world.make_all_ready()
    await world.until(lambda: world.condition().get("status") == "True")
    await world.set_image("v2")
    await world.until(lambda: len(world.pods()) == 2)
    await world.make_all_ready()
    await world.until(lambda: world.images() == {node: "v2"} and len(world.pods()) == 1)


async def test_on_delete_waits_for_people(world, operator):
    node = await world.add_node("n")
    await world.create(updateStrategy={"type": "OnDelete"})
    await world.until(lambda: len(world.pods()) == 1)
    await world.make_all_ready()
    await world.set_image("v2")
    await world.until(lambda: world.observed() and world.status().get("updatedNumberScheduled") == 0)
    assert world.images() == {node: "v1"}
    await world.client.delete(PODS, world.pods()[0]["metadata"]["name"], world.namespace)
    await world.until(lambda: world.images() == {node: "v2"})


@pytest.mark.parametrize(
    ("phase", "reason", "text"),
    [
        ("Failed", "FailedDaemonPod", "Found failed daemon pod {ns}/{pod} on node {node}, will try to kill it"),
        (
            "Succeeded",
            "SucceededDaemonPod",
            "Found succeeded daemon pod {ns}/{pod} on node {node}, will try to delete it",
        ),
    ],
)
async def test_ended_pods_are_replaced(world, operator, phase, reason, text):
    node = await world.add_node("n")
    await world.create()
    await world.until(lambda: len(world.pods()) == 1)
    (first,) = world.pods()
    await world.set_status(first, phase=phase, ready=False)
    await world.until(lambda: (p := world.pods()) and p[0]["metadata"]["uid"] != first["metadata"]["uid"])
    ((_, _, message),) = await world.until(lambda: world.events(reason))
    assert message == text.format(ns=world.namespace, pod=first["metadata"]["name"], node=node)
    deleted = await world.until(lambda: world.events("SuccessfulDelete"))
    assert deleted == [("Normal", "SuccessfulDelete", f"Deleted pod: {first['metadata']['name']}")]


async def test_orphans_are_adopted_strays_released_and_others_left_alone(world, operator):
    node = await world.add_node("n")
    pin = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
            }
        }
    }
    spec = {"containers": [{"name": "c", "image": "v1"}], "affinity": pin}

    def bare(name, **meta):
        return {"metadata": {"name": name, "labels": {"app": "ds"}, **meta}, "spec": spec}

    # A real owner: a garbage collector that runs beside would take the Pod of one that does not exist.
    config = await world.client.create(CONFIGMAPS, {"metadata": {"name": "x"}}, world.namespace)
    foreign_uid = config["metadata"]["uid"]
    foreign_owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": foreign_uid, "controller": True}
    await world.client.create(PODS, bare("foreign", ownerReferences=[foreign_owner]), world.namespace)
    await world.client.create(PODS, bare("orphan"), world.namespace)
    await world.create(updateStrategy={"type": "OnDelete"})
    name = lambda p: p["metadata"]["name"]  # noqa: E731
    owner = lambda p: [o["uid"] for o in p["metadata"].get("ownerReferences") or []]  # noqa: E731
    find = lambda n: next(p for p in world.all(PODS) if name(p) == n)  # noqa: E731
    await world.until(lambda: world.all(DAEMONSETS) and owner(find("orphan")) == [world.ds()["metadata"]["uid"]])
    await world.until(lambda: world.status().get("currentNumberScheduled") == 1)
    assert {name(p) for p in world.pods()} == {"foreign", "orphan"}
    await world.client.patch(PODS, "orphan", {"metadata": {"labels": {"app": "else"}}}, world.namespace)
    await world.until(lambda: owner(find("orphan")) == [] and len(world.pods()) == 3)
    assert owner(find("foreign")) == [foreign_uid]
    assert not [entry for entry in world.log if entry[0] == "Pod" and entry[1] == "deleted"]


async def test_a_template_that_makes_no_valid_pod_is_told_and_harms_nobody(world, operator):
    for i in range(4):
        await world.add_node(f"n{i}")
    bad = world.manifest("bad")
    bad["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "nowhere", "mountPath": "/x"}]
    await world.client.create(DAEMONSETS, bad, world.namespace)
    await world.until(lambda: world.condition("bad").get("reason") == "SyncFailed")
    assert 'volumeMounts[0].name: Not found: "nowhere"' in world.condition("bad")["message"]
    await world.create("good")
    await world.until(lambda: len(world.pods()) == 4)
    ((kind, _, message), *_) = await world.until(lambda: world.events("FailedCreate"))
    assert kind == "Warning"
    assert message.startswith("Error creating: Pod ")
    assert 'volumeMounts[0].name: Not found: "nowhere"' in message
    await world.client.patch(
        DAEMONSETS,
        "bad",
        [{"op": "remove", "path": "/spec/template/spec/containers/0/volumeMounts"}],
        world.namespace,
        kind=PatchType.JSON,
    )
    await world.until(lambda: len(world.pods()) == 8)


async def test_a_taken_revision_name_is_counted_as_a_collision(world, start_operator):
    from nodewright.controllers.daemonset.model import DaemonSet
    from nodewright.controllers.daemonset.revisions import new_revision

    await world.add_node("n")
    await world.create()
    ds = await world.client.get(DAEMONSETS, "ds", world.namespace, type=DaemonSet)
    taken = new_revision(DAEMONSETS, ds, 1)
    taken["metadata"] = {"name": taken["metadata"]["name"]}
    taken["data"] = {"spec": {"template": {"spec": {"containers": []}}}}
    await world.client.create(CONTROLLERREVISIONS, taken, world.namespace)
    await start_operator()
    await world.until(lambda: world.status().get("collisionCount") == 1 and len(world.pods()) == 1)
    made = next(r for r in world.all(CONTROLLERREVISIONS) if r["metadata"]["name"] != taken["metadata"]["name"])
    assert made["metadata"]["ownerReferences"][0]["uid"] == ds.metadata.uid
    await world.until(lambda: world.status().get("currentNumberScheduled") == 1)


async def test_doubles_of_the_current_revision_are_merged(world, start_operator):
    await world.add_node("n")
    thread = await start_operator()
    await world.create()
    await world.until(lambda: len(world.pods()) == 1 and len(world.all(CONTROLLERREVISIONS)) == 1)
    (original,) = world.all(CONTROLLERREVISIONS)
    double = {
        "metadata": {
            "name": "ds-double",
            "labels": {"app": "ds", "controller-revision-hash": "double"},
            "ownerReferences": original["metadata"]["ownerReferences"],
        },
        "data": original["data"],
        "revision": 9,
    }
    await world.client.create(CONTROLLERREVISIONS, double, world.namespace)
    await world.until(lambda: [r["metadata"]["name"] for r in world.all(CONTROLLERREVISIONS)] == ["ds-double"])
    await world.until(lambda: world.pods()[0]["metadata"]["labels"]["controller-revision-hash"] == "double")
    assert not [entry for entry in world.log if entry[0] == "Pod" and entry[1] == "deleted"]
    assert not thread.ended.done()


async def test_history_is_limited(world, operator):
    await world.create(revisionHistoryLimit=1)
    await world.until(lambda: len(world.all(CONTROLLERREVISIONS)) == 1)
    for i in range(2, 5):
        await world.set_image(f"v{i}")
        await world.until(lambda i=i: any(r["revision"] == i for r in world.all(CONTROLLERREVISIONS)))
    await world.until(
        lambda: [r["revision"] for r in sorted(world.all(CONTROLLERREVISIONS), key=lambda r: r["revision"])] == [3, 4]
    )


async def test_min_ready_seconds(world, operator):
    await world.add_node("n")
    await world.create(minReadySeconds=2)
    await world.until(lambda: len(world.pods()) == 1)
    await world.make_all_ready()
    await world.until(lambda: world.status().get("numberReady") == 1)
    seen = world.status()["numberAvailable"]
    await world.until(lambda: world.status().get("numberAvailable") == 1)
    assert seen == 0


async def test_a_deleted_daemonset_takes_its_pods_along(world, operator, controller_manager):
    await world.add_node("n")
    await world.create()
    await world.until(lambda: len(world.pods()) == 1)
    await world.client.delete(DAEMONSETS, "ds", world.namespace)
    await world.until(lambda: not world.all(PODS) and not world.all(CONTROLLERREVISIONS), timeout=40)


async def test_the_garbage_collector_can_orphan_a_revision(world, operator):
    await world.add_node("n")
    manifest = world.manifest()
    manifest["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", "a && b > c"]
    await world.client.create(DAEMONSETS, manifest, world.namespace)
    await world.until(lambda: len(world.pods()) == 1 and len(world.all(CONTROLLERREVISIONS)) == 1)
    (made,) = world.all(CONTROLLERREVISIONS)
    patch = {"metadata": {"annotations": {"touched": "yes"}, "uid": made["metadata"]["uid"]}}
    await world.client.patch(
        CONTROLLERREVISIONS, made["metadata"]["name"], patch, world.namespace, kind=PatchType.STRATEGIC
    )
