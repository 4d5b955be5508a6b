"""`nodewright explain daemonset` against the real API server, with the controller in this process."""

import json

import pytest
import yaml

from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import DAEMONSETS, PODS, Resource
from support.cli_process import Cli

pytestmark = pytest.mark.needs_cluster

CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False)
CLUSTERROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False)
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True)

READ_ONLY = [
    {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list"]},
    {"apiGroups": ["apps"], "resources": ["controllerrevisions", "daemonsets"], "verbs": ["get", "list"]},
    {"apiGroups": ["nodewright.dev"], "resources": ["daemonsets"], "verbs": ["get", "list"]},
]


@pytest.fixture
async def cli(cluster):
    cli = Cli(cluster.kubeconfig)
    yield cli
    await cli.stop()


@pytest.fixture
async def reader(client, cluster, namespace, tmp_path):
    """A user who may read what is needed, and nothing else."""
    name = f"reader-{namespace}"
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": "reader"}}, namespace)
    await client.create(CLUSTERROLES, {"metadata": {"name": name}, "rules": READ_ONLY})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": CLUSTERROLES.group, "kind": "ClusterRole", "name": name}
    await client.create(CLUSTERROLEBINDINGS, {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    answer = await client.create(SERVICEACCOUNTS, body, namespace, name="reader", subresource="token")
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": answer["status"]["token"]}} for user in config["users"]]
    path = tmp_path / "reader.conf"
    path.write_text(yaml.safe_dump(config))
    cli = Cli(path)
    yield cli
    await cli.stop()
    await client.delete(CLUSTERROLEBINDINGS, name)
    await client.delete(CLUSTERROLES, name)


async def explained(cli, namespace, *words, name="ds"):
    return json.loads(await cli.run("explain", "daemonset", f"{namespace}/{name}", *words, "-o", "json"))


def line(answer, node):
    return next(each for each in answer["nodes"] if each["node"] == node)


def kinds(answer):
    return {wait["kind"] for wait in answer["waits"]}


async def ready(world, count):
    await world.until(lambda: len(world.pods()) == count)
    await world.make_all_ready()
    await world.until(lambda: world.observed() and world.condition().get("status") == "True")


async def test_why_each_node_has_or_has_not_a_pod(world, operator, cli, namespace):
    good = await world.add_node("good")
    tainted = await world.add_node("tainted", taints=("dedicated:NoSchedule",))
    other = await world.add_node("other", disk="hdd")
    await world.create()
    await world.until(lambda: len(world.pods()) == 2)
    manifest = world.manifest("ssd")
    manifest["spec"]["template"]["spec"]["nodeSelector"]["disk"] = "ssd"
    await world.client.create(DAEMONSETS, manifest, namespace)
    answer = await explained(cli, namespace)
    assert line(answer, tainted)["reason"] == "untolerated taint dedicated:NoSchedule"
    assert line(answer, good)["reason"] == line(answer, other)["reason"] == "new template, not scheduled"
    pod = world.pods_by_node()[good]
    waiting = {"name": "c", "image": "v1", "imageID": "", "ready": False, "restartCount": 0}
    waiting["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    patch = {"status": {"phase": "Pending", "containerStatuses": [waiting]}}
    await world.client.patch(PODS, pod["metadata"]["name"], patch, namespace, subresource="status")
    answer = await explained(cli, namespace, "--node", good)
    assert [each["node"] for each in answer["nodes"]] == [good]
    assert line(answer, good)["reason"] == "new template, container c: ImagePullBackOff"
    assert line(answer, good)["pods"][0]["message"] == "no such image"
    answer = await explained(cli, namespace, name="ssd")
    assert line(answer, other)["reason"] == "node selector disk=ssd does not match"
    assert "there is no node nowhere" in await cli.run(
        "explain", "daemonset", f"{namespace}/ds", "--node", "nowhere", code=1
    )


async def test_a_rollout_under_way_and_what_it_waits_for(world, operator, cli, namespace):
    nodes = [await world.add_node(f"n{i}") for i in range(3)]
    await world.create()
    await ready(world, 3)
    answer = await explained(cli, namespace)
    assert (answer["complete"], answer["waits"], answer["next"]) == (True, [], [])
    await world.set_image("v2")
    await world.until(lambda: "v2" in world.images().values())
    answer = await explained(cli, namespace)
    (first,) = [node for node, image in world.images().items() if image == "v2"]
    budget = next(wait for wait in answer["waits"] if wait["kind"] == "budget")
    assert (budget["nodes"], answer["complete"], answer["updated"]) == ([first], False, 1)
    assert all("old template (revision 1)" in line(answer, node)["reason"] for node in set(nodes) - {first})
    table = await cli.run("explain", "daemonset", f"{namespace}/ds")
    assert "maxUnavailable 1 is used up by" in table
    await world.client.patch(DAEMONSETS, "ds", {"spec": {"paused": True}}, namespace)
    assert "paused" in kinds(await explained(cli, namespace))


async def test_without_a_controller_it_tells_what_one_would_do(world, cli, namespace):
    node = await world.add_node("n")
    await world.create()
    answer = await explained(cli, namespace)
    assert "the controller has not seen it yet" in answer["notes"][0]
    assert answer["next"] == [{"action": "create", "node": node, "why": "the current template"}]


async def test_an_orphan_of_two_is_announced_by_the_older_one_only(world, client, cli, namespace):
    node = await world.add_node("n")
    made = []
    for name in ("a", "b"):
        manifest = world.manifest(name)
        manifest["spec"]["selector"] = {"matchLabels": {"app": "both"}}
        manifest["spec"]["template"]["metadata"]["labels"] = {"app": "both"}
        made.append((await client.create(DAEMONSETS, manifest, namespace))["metadata"])
    # Made in one second, as a rule: then nothing but their UIDs tells which one comes first.
    elder, younger = (one["name"] for one in sorted(made, key=lambda meta: (meta["creationTimestamp"], meta["uid"])))
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
    await client.create(PODS, {"metadata": {"name": "orphan", "labels": {"app": "both"}}, "spec": spec}, namespace)
    notes = {name: str((await explained(cli, namespace, name=name))["notes"]) for name in (elder, younger)}
    assert "it would adopt: orphan" in notes[elder]
    assert "adopt" not in notes[younger]


async def test_it_foretells_what_the_controller_does(world, start_operator, cli, namespace):
    """The plan that is shown while no controller runs is what the next one then does."""
    for i in range(4):
        await world.add_node(f"n{i}")
    await world.create(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}})
    thread = await start_operator()
    await ready(world, 4)
    await thread.stop()
    await world.set_image("v2")
    answer = await explained(cli, namespace)
    foretold = {action["pod"] for action in answer["next"]}
    assert [action["action"] for action in answer["next"]] == ["delete", "delete"]
    before = {pod["metadata"]["name"] for pod in world.pods()}
    await start_operator()
    await world.until(lambda: list(world.images().values()).count("v2") == 2)
    assert before - {pod["metadata"]["name"] for pod in world.pods()} == foretold


async def test_a_refused_pod_is_told(world, operator, cli, namespace):
    await world.add_node("n")
    manifest = world.manifest()
    manifest["spec"]["template"]["spec"]["serviceAccountName"] = "missing"
    await world.client.create(DAEMONSETS, manifest, namespace)
    await world.until(lambda: world.events("FailedCreate"))
    answer = await explained(cli, namespace)
    assert any('serviceaccount "missing" not found' in note for note in answer["notes"]), answer["notes"]


async def test_read_rights_are_enough_and_nothing_is_written(world, operator, reader, cli, cluster, namespace):
    await world.add_node("n")
    await world.create()
    await ready(world, 1)
    answer = await explained(reader, namespace)
    assert answer["complete"] is True
    assert answer == await explained(cli, namespace)
    said = await reader.run("rollout", "pause", f"nds/{namespace}/ds", code=1)
    assert "forbidden" in said.lower()
    user = f"system:serviceaccount:{namespace}:reader"
    tried = []
    for path in cluster.layout.audit_log.parent.glob(f"{cluster.layout.audit_log.stem}*"):
        records = [json.loads(text) for text in path.read_text().splitlines() if user in text]
        tried += [r["verb"] for r in records if r["verb"] not in ("get", "list") and r["stage"] == "ResponseComplete"]
    assert tried == ["patch"]  # the pause: explain did not even try to write
    async with Client(load(reader.kubeconfig)) as limited:
        assert (await limited.list(PODS, namespace)).items
