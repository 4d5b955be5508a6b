"""`nodewright rollout` against the real API server, with the controller in this process."""

import asyncio
import json

import pytest

from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.framework.process import Options
from nodewright.kube.client import Client, PatchType
from nodewright.kube.config import load
from nodewright.kube.resources import APPS_DAEMONSETS, CONTROLLERREVISIONS, DAEMONSETS, PODS
from support.cli_process import Cli, line_with
from support.operator_thread import OperatorThread

pytestmark = pytest.mark.needs_cluster

CAUSE = "kubernetes.io/change-cause"


@pytest.fixture
async def cli(cluster):
    cli = Cli(cluster.kubeconfig)
    yield cli
    await cli.stop()


@pytest.fixture
def name(namespace):
    return f"nds/{namespace}/ds"


async def rolled_out(world, nodes=3, **spec):
    """A DaemonSet on so many nodes, all of whose pods are ready."""
    names = [await world.add_node(f"n{i}") for i in range(nodes)]
    await world.create(**spec)
    await world.until(lambda: len(world.pods()) == nodes)
    await world.make_all_ready()
    await world.until(lambda: world.observed() and world.condition().get("status") == "True")
    return names


async def roll_on(world, image):
    """Let all pods that come be ready, until all have the image."""

    def done():
        found = world.images()
        return (
            len(found) == len(world._nodes) and set(found.values()) == {image} and world.condition()["status"] == "True"
        )

    while not done():
        await world.make_all_ready()
        world.changed.clear()
        if not done():
            await world.changed.wait()


async def test_status_follows_a_rollout_to_its_end(world, operator, cli, name):
    await rolled_out(world)
    await world.set_image("v2")
    following = await cli.begin("rollout", "status", name)
    await line_with(following, "1 out of 3 new pods have been updated...")
    assert "maxUnavailable 1 is used up by" in await line_with(following, "wait their turn")
    await roll_on(world, "v2")
    await line_with(following, 'daemon set "ds" successfully rolled out')
    assert await following.wait() == 0
    assert await cli.run("rollout", "status", name) == 'daemon set "ds" successfully rolled out\n'


async def test_status_gives_up_in_time_and_looks_once_where_told(world, operator, cli, name):
    await rolled_out(world, 2)
    await world.set_image("v2")
    await world.until(lambda: world.status().get("updatedNumberScheduled") == 1)
    assert "timed out waiting" in await cli.run("rollout", "status", name, "--timeout", "2s", code=4)
    said = await cli.run("rollout", "status", name, "--no-watch")
    assert said.startswith('Waiting for daemon set "ds" rollout to finish: 1 out of 2 new pods have been updated...\n')
    assert "  new pods are not ready on 1 node" in said


async def test_status_ends_when_the_daemonset_is_deleted(world, operator, cli, name):
    await rolled_out(world, 2)
    await world.set_image("v2")
    following = await cli.begin("rollout", "status", name)
    await line_with(following, "new pods have been updated...")
    await world.client.delete(DAEMONSETS, "ds", world.namespace)
    assert await following.wait() == 1
    assert b'daemonsets.nodewright.dev "ds" has been deleted' in await following.stderr.read()


async def test_pause_keeps_pods_and_resume_lets_them_go(world, operator, cli, name):
    await rolled_out(world)
    assert await cli.run("rollout", "pause", name) == "daemonset.nodewright.dev/ds paused\n"
    said = await cli.run("rollout", "pause", name, code=1)
    assert 'error: daemonsets.nodewright.dev "ds" is already paused' in said
    await world.set_image("v2")
    await world.until(world.observed)
    assert set(world.images().values()) == {"v1"}
    following = await cli.begin("rollout", "status", name)
    await line_with(following, "rollout is paused: 0 out of 3 new pods have been updated")
    assert await following.wait() == 3
    assert "can't restart paused daemonset (run rollout resume first)" in await cli.run(
        "rollout", "restart", name, code=1
    )
    assert "you cannot rollback a paused daemonset" in await cli.run("rollout", "undo", name, code=1)
    said = await cli.run("rollout", "resume", name)
    assert said == "daemonset.nodewright.dev/ds resumed: it is paused no longer\n"
    await roll_on(world, "v2")
    assert "is not paused, and nothing in its rollout waits" in await cli.run("rollout", "resume", name, code=1)


async def test_undo_brings_an_earlier_template_back(world, operator, cli, name):
    await rolled_out(world, 2, labels={"only": "v1"})
    before = world.ds()["spec"]["template"]
    patch = [
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "v2"},
        {"op": "add", "path": "/spec/template/spec/hostNetwork", "value": True},
    ]
    await world.client.patch(DAEMONSETS, "ds", patch, world.namespace, kind=PatchType.JSON)
    await roll_on(world, "v2")
    changed = world.ds()["spec"]["template"]
    said = await cli.run("rollout", "undo", name, "--dry-run")
    assert "-  hostNetwork: true" in said
    assert said.endswith("daemonset.nodewright.dev/ds rolled back (server dry run)\n")
    assert (await world.client.get(DAEMONSETS, "ds", world.namespace))["spec"]["template"] == changed
    assert await cli.run("rollout", "undo", name) == "daemonset.nodewright.dev/ds rolled back\n"
    await roll_on(world, "v1")
    assert world.ds()["spec"]["template"] == before  # what the other one had on top is gone
    assert sorted(r["revision"] for r in world.all(CONTROLLERREVISIONS)) == [2, 3]
    said = await cli.run("rollout", "undo", name, "--to-revision", "3")
    assert said == "daemonset.nodewright.dev/ds skipped rollback (current template already matches revision 3)\n"
    said = await cli.run("rollout", "undo", name, "--to-revision", "9", code=1)
    assert "unable to find specified revision 9 in history" in said


async def test_undo_without_a_past(world, operator, cli, name):
    await rolled_out(world, 1)
    assert "no last revision to roll back to" in await cli.run("rollout", "undo", name, code=1)


async def test_history(world, operator, cli, name):
    await rolled_out(world, 2)
    patch = {"metadata": {"annotations": {CAUSE: "a better [v2]"}}}
    await world.client.patch(DAEMONSETS, "ds", patch, world.namespace)
    await world.set_image("v2")
    await world.until(lambda: world.status().get("updatedNumberScheduled") == 1)
    found = json.loads(await cli.run("rollout", "history", name, "-o", "json"))
    assert [(e["revision"], e["change_cause"], e["images"], e["pods"]) for e in found] == [
        (1, "", ["v1"], 1),
        (2, "a better [v2]", ["v2"], 1),
    ]
    assert [(e["current"], e["update"]) for e in found] == [(True, False), (False, True)]
    table = await cli.run("rollout", "history", name)
    title, head, first, second = table.splitlines()
    assert title == "daemonset.nodewright.dev/ds"
    assert head.split()[:2] == ["REVISION", "CHANGE-CAUSE"]
    assert (first.split()[:2], "a better [v2]" in second) == (["1", "<none>"], True)
    one = await cli.run("rollout", "history", name, "--revision", "1")
    assert one.startswith("daemonset.nodewright.dev/ds with revision #1\n")
    assert "image: v1" in one
    assert "-  - image: v1\n+  - image: v2\n" in one or "-    image: v1\n+    image: v2\n" in one
    assert "unable to find the specified revision" in await cli.run(
        "rollout", "history", name, "--revision", "7", code=1
    )


async def test_restart_replaces_all_pods(world, operator, cli, name):
    await rolled_out(world, 2)
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    assert await cli.run("rollout", "restart", name) == "daemonset.nodewright.dev/ds restarted\n"

    def replaced():
        found = {pod["metadata"]["uid"] for pod in world.pods()}
        return len(found) == 2 and not found & before

    while not replaced():
        await world.make_all_ready()
        world.changed.clear()
        if not replaced():
            await world.changed.wait()
    annotations = world.ds()["spec"]["template"]["metadata"]["annotations"]
    assert list(annotations) == ["kubectl.kubernetes.io/restartedAt"]


async def test_resume_releases_a_step_that_waits_for_a_person(world, operator, cli, name):
    rolling = {"maxUnavailable": 3, "steps": [{"nodes": 1, "waitForResume": True}]}
    await rolled_out(world, updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    await world.set_image("v2")
    following = await cli.begin("rollout", "status", name)
    await world.until(lambda: sorted(world.images().values()) == ["v1", "v1", "v2"])
    await world.make_all_ready()
    await line_with(following, "step 1 of 1 is ready and waits for `nodewright rollout resume`")
    said = await cli.run("rollout", "resume", name)
    assert said == "daemonset.nodewright.dev/ds resumed: step 1 of 1 waits for nobody any more\n"
    await roll_on(world, "v2")
    await line_with(following, "successfully rolled out")
    assert await following.wait() == 0


async def test_a_failed_rollout_ends_status_and_is_resumed(world, operator, cli, name):
    rolling = {"maxUnavailable": 1, "maxFailed": 0}
    await rolled_out(world, updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    await world.set_image("v2")
    following = await cli.begin("rollout", "status", name)
    (bad,) = await world.until(lambda: [p for p in world.pods() if p["spec"]["containers"][0]["image"] == "v2"])
    waiting = {"name": "c", "image": "v2", "imageID": "", "ready": False, "restartCount": 0}
    waiting["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    patch = {"status": {"phase": "Pending", "containerStatuses": [waiting]}}
    await world.client.patch(PODS, bad["metadata"]["name"], patch, world.namespace, subresource="status")
    await line_with(following, "rollout has stopped: new pods of revision")
    assert await following.wait() == 1
    said = await cli.run("rollout", "resume", name)
    assert "stop it no longer" in said
    await world.until(lambda: not (world.status().get("rollout") or {}).get("failedRevision"))


async def test_a_name_of_both_kinds_is_asked_about(world, cli, namespace):
    manifest = world.manifest()
    await world.client.create(DAEMONSETS, manifest, namespace)
    assert "no rollout history" in (await cli.run("rollout", "history", f"{namespace}/ds")).lower()
    try:
        await world.client.create(APPS_DAEMONSETS, {**manifest, "apiVersion": "apps/v1"}, namespace)
        said = await cli.run("rollout", "history", f"{namespace}/ds", code=2)
        assert f"there are two DaemonSets {namespace}/ds" in said
        assert "hint: --api nodewright.dev/v1alpha1 or --api apps/v1" in said
        for words in ([f"ds/{namespace}/ds"], ["ds", f"{namespace}/ds"], ["ds", "--api", "apps/v1", "-n", namespace]):
            assert await cli.run("rollout", "pause", *words) == "daemonset.apps/ds paused\n"
            assert "daemonset.apps/ds resumed" in await cli.run("rollout", "resume", *words)
    finally:
        await world.client.delete(APPS_DAEMONSETS, "ds", namespace)
    said = await cli.run("rollout", "pause", f"ds/{namespace}/gone", code=1)
    assert f"there is no DaemonSet {namespace}/gone of apps/v1" in said


async def test_apps_v1_where_it_is_taken_over(make_cluster, start_cluster, kubectl_for):
    """In a cluster of its own: in the shared one, kube-controller-manager may serve apps/v1."""
    own = make_cluster("apps")
    await asyncio.to_thread(start_cluster, own)
    cli, kubectl = Cli(own.kubeconfig), kubectl_for(own)
    container = {"name": "c", "image": "v1"}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "ds", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "ds"}},
            "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {"containers": [container]}},
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    operator = OperatorThread(Options(kubeconfig=own.kubeconfig, metrics_port=None), (AppsDaemonSetController,))
    try:
        await operator.wait_started()
        async with Client(load(own.kubeconfig)) as client:
            await _apps(client, cli, kubectl)
    finally:
        await cli.stop()
        await operator.stop()


async def _apps(client, cli, kubectl):
    name = "default/ds"
    await cli.run("rollout", "status", name, "--timeout", "30s")  # no node: done at once
    assert await cli.run("rollout", "pause", name) == "daemonset.apps/ds paused\n"
    ds = await client.get(APPS_DAEMONSETS, "ds", "default")
    assert ds["metadata"]["annotations"]["nodewright.dev/paused"] == "true"
    assert await cli.run("rollout", "resume", name) == "daemonset.apps/ds resumed: it is paused no longer\n"
    kubectl("set", "image", "ds/ds", "c=v2", "-n", "default")
    await cli.run("rollout", "status", name, "--timeout", "30s")
    assert await cli.run("rollout", "undo", name) == "daemonset.apps/ds rolled back\n"
    ds = await client.get(APPS_DAEMONSETS, "ds", "default")
    assert ds["spec"]["template"]["spec"]["containers"][0]["image"] == "v1"
    await cli.run("rollout", "status", name, "--timeout", "30s")
    revisions = (await client.list(CONTROLLERREVISIONS, "default")).items
    assert sorted(r["revision"] for r in revisions) == [2, 3]
    # kubectl and this command say the same of the same history
    listed = [
        line.split()[0] for line in kubectl("rollout", "history", "ds/ds", "-n", "default").splitlines()[2:] if line
    ]
    assert [line.split()[0] for line in (await cli.run("rollout", "history", name)).splitlines()[2:]] == listed
