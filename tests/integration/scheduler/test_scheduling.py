"""Pods placed, refused and tried again, by the process that users run, against a real API server."""

import asyncio
import json

import aiohttp
import pytest

from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import NODES, PODS, SCHEDULERPROFILES
from nodewright.scheduler.binder import Binder, Binding, BindResult
from nodewright.scheduler.objects import Pod
from nodewright.scheduler.plugin import Plugin, Scope
from nodewright.scheduler.pods import PodFactory
from nodewright.scheduler.profile import PluginRef
from nodewright.scheduler.queue import QueuedPod
from nodewright.scheduler.registry import Registry

from .conftest import eventually

pytestmark = pytest.mark.needs_cluster


async def test_a_pod_gets_the_emptiest_node_an_event_and_a_condition(space, start):
    await space.node("small", "1")
    await space.node("large", "8")
    start()
    await space.pod("web", {"cpu": "500m"})
    assert await space.bound("web") == {"web": "large"}
    assert (await space.condition("web"))["status"] == "True"

    async def event():
        return await space.events("web", "Scheduled")

    (found,) = await eventually(event)
    assert found["note"] == f"Successfully assigned {space.namespace}/web to large"
    assert (found["type"], found["action"], found["reportingController"]) == ("Normal", "Binding", "nodewright")


async def test_a_pod_that_fits_nowhere_is_told_why_in_upstreams_words(space, start):
    await space.node("small", "1")
    await space.node("cordoned", "64", unschedulable=True)
    await space.node("tainted", "64", taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}])
    start()
    await space.pod("big", {"cpu": "2"})
    condition = await space.refused("big")
    message = (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."
        " no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    assert (condition["reason"], condition["message"]) == ("Unschedulable", message)
    assert condition["observedGeneration"] == 1

    async def event():
        return await space.events("big", "FailedScheduling")

    (found,) = await eventually(event)
    assert (found["note"], found["type"], found["action"]) == (message, "Warning", "Scheduling")


async def test_a_new_node_and_a_deleted_pod_let_waiting_pods_through(space, start):
    await space.node("one", "1")
    start()
    await space.pod("first", {"cpu": "1"})
    await space.bound("first")
    await space.pod("second", {"cpu": "1"})
    await space.pod("third", {"cpu": "3"})
    await space.refused("second")
    await space.refused("third")
    await space.client.delete(PODS, "first", space.namespace, grace_period_seconds=0)
    assert await space.bound("second") == {"second": "one"}
    await space.node("two", "4")
    assert await space.bound("third") == {"third": "two"}


async def test_changes_of_nodes_let_waiting_pods_through(space, start):
    await space.node("n", "4", unschedulable=True)
    start()
    await space.pod("a", nodeSelector={"disk": "ssd"})
    await space.refused("a")
    await space.client.patch(NODES, "n", {"spec": {"unschedulable": None}})
    await space.client.patch(NODES, "n", {"metadata": {"labels": {"disk": "ssd"}}})
    assert await space.bound("a") == {"a": "n"}


async def test_a_gated_pod_waits_for_its_gate(space, start):
    await space.node("n")
    start()
    await space.pod("gated", schedulingGates=[{"name": "example.com/wait"}])
    await space.pod("free")
    await space.bound("free")
    assert await space.node_of("gated") == ""
    await space.client.patch(PODS, "gated", {"spec": {"schedulingGates": None}}, space.namespace)
    assert await space.bound("gated") == {"gated": "n"}


async def test_pods_of_other_schedulers_are_left_alone(space, start):
    await space.node("n")
    start()
    await space.pod("theirs", schedulerName="somebody-else")
    await space.pod("ours")
    await space.bound("ours")
    assert await space.node_of("theirs") == ""


async def test_never_more_pods_than_fit(space, start):
    for name in ("a", "b", "c"):
        await space.node(name, "2")
    await asyncio.gather(*(space.pod(f"p{i}", {"cpu": "500m"}) for i in range(20)))
    start()

    async def twelve():
        pods = (await space.client.list(PODS, space.namespace)).items
        placed = [p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName")]
        refused = [p for p in pods if p.get("status", {}).get("conditions", [{}])[0].get("status") == "False"]
        return placed if len(placed) == 12 and len(refused) == 8 else None

    placed = await eventually(twelve)
    assert sorted(placed) == sorted(["a", "b", "c"] * 4)


async def test_what_becomes_of_bindings_that_the_server_refuses(space, lab):
    await space.node("n")
    await space.node("m")
    await space.pod("taken")
    taken = await space.client.get(PODS, "taken", space.namespace, type=Pod)
    target = {"metadata": {"name": "taken"}, "target": {"kind": "Node", "name": "m"}}
    await space.client.create(PODS, target, space.namespace, name="taken", subresource="binding")
    await space.pod("again")
    before = await space.client.get(PODS, "again", space.namespace, type=Pod)
    await space.client.delete(PODS, "again", space.namespace, grace_period_seconds=0)
    await space.pod("again")
    gone = Pod(metadata=type(taken.metadata)(name="gone", namespace=space.namespace, uid="x"))

    settled = {}
    async with Client(load(lab.layout.kubeconfig("scheduler"))) as client:
        binder = Binder(client, lambda binding, result, message: settled.update({binding.queued.pod.key: result}))
        task = asyncio.ensure_future(binder.run())
        for pod in (taken, before, gone):
            queued = QueuedPod(PodFactory().info(pod), 0.0)
            binder.submit(Binding(queued, "n", "nodewright", 0.0))
        await binder.wait_idle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert settled == {
        taken.key: BindResult.CONFLICT,
        before.key: BindResult.CONFLICT,
        gone.key: BindResult.GONE,
    }
    assert await space.node_of("taken") == "m"
    assert await space.node_of("again") == ""


async def test_two_schedulers_at_once_bind_every_pod_once(space, start, lab):
    """Not how it is meant to run (a Lease prevents it), and harmless all the same."""
    for name in ("a", "b"):
        await space.node(name, "16")
    start()
    start()
    names = [f"p{i}" for i in range(30)]
    await asyncio.gather(*(space.pod(name, {"cpu": "100m"}) for name in names))
    await space.bound(*names)
    assert bindings(lab, space.namespace) == dict.fromkeys(names, 1)


def bindings(lab, namespace):
    """Successful bindings per Pod, from the audit log."""
    counts = {}
    for line in lab.layout.audit_log.read_text().splitlines():
        entry = json.loads(line)
        ref = entry.get("objectRef", {})
        ours = ref.get("subresource") == "binding" and ref.get("namespace") == namespace
        if ours and entry["responseStatus"]["code"] < 300:
            counts[ref["name"]] = counts.get(ref["name"], 0) + 1
    return counts


async def test_the_standby_takes_over_when_the_leader_stops(space, start):
    await space.node("n")
    leader = start(leader_elect=True, identity="leader")
    await space.pod("one")
    await space.bound("one")
    start(leader_elect=True, identity="standby")
    leader.task.cancel()
    await asyncio.gather(leader.task, return_exceptions=True)
    await space.pod("two")
    assert await space.bound("two") == {"two": "n"}


async def test_probes_and_metrics(space, start):
    await space.node("n")
    process = start(metrics_port=0)
    await space.pod("one")
    await space.bound("one")
    base = f"http://127.0.0.1:{process.health.port}"
    async with aiohttp.ClientSession() as session:
        for path in ("/livez", "/readyz"):
            async with session.get(base + path) as answer:
                assert answer.status == 200
        async with session.get(base + "/metrics") as answer:
            text = await answer.text()
    assert 'scheduler_schedule_attempts_total{profile="nodewright",result="scheduled"}' in text
    assert 'scheduler_pending_pods{queue="active"} 0.0' in text
    assert "scheduler_pod_scheduling_sli_duration_seconds_bucket" in text


# --- plugins and profiles -------------------------------------------------------------------------------------------

QUIET = """
from nodewright.scheduler.plugin import FilterResult, Plugin, Scope


class QuietNodes(Plugin):
    name = "QuietNodes"
    scope = Scope.NODES

    def filter(self, ctx):
        ids, column = ctx.nodes.label("noise")
        return FilterResult(ids != column.number("loud"), "node(s) were too loud")
"""


@pytest.fixture
def quiet_package(tmp_path, monkeypatch):
    """A package of somebody else, installed the usual way."""
    (tmp_path / "quiet_plugin.py").write_text(QUIET)
    info = tmp_path / "quiet_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quiet-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nodewright.scheduler.plugins]\nQuietNodes = quiet_plugin:QuietNodes\n")
    monkeypatch.syspath_prepend(str(tmp_path))


async def test_a_plugin_of_another_package(space, start, quiet_package):
    await space.node("loud", "64", labels={"noise": "loud"})
    await space.node("quiet", "1")
    start(plugins=[PluginRef("QuietNodes")])
    await space.pod("light", {"cpu": "500m"})
    assert await space.bound("light") == {"light": "quiet"}
    await space.pod("heavy", {"cpu": "2"})
    condition = await space.refused("heavy")
    assert condition["message"].startswith(
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were too loud. no new claims to deallocate, preemption:"
    )


class Broken(Plugin):
    name = "Broken"
    scope = Scope.NODES

    def score(self, ctx):
        if ctx.pod.pod.metadata.name == "unlucky":
            raise ZeroDivisionError("no luck at all")
        return


async def test_a_plugin_that_raises_fails_that_pod_with_its_name(space, start):
    await space.node("a")
    await space.node("b")
    start(registry=Registry({"Broken": Broken}), plugins=[PluginRef("Broken")])
    await space.pod("unlucky")
    condition = await space.refused("unlucky")
    text = 'running "Broken" score plugin: ZeroDivisionError: no luck at all'
    assert (condition["reason"], condition["message"]) == ("SchedulerError", text)
    await space.pod("lucky")
    await space.bound("lucky")

    async def event():
        return [e for e in await space.events("unlucky", "FailedScheduling") if e["note"] == text]

    await eventually(event)


@pytest.fixture
async def profile(client):
    made = []

    async def make(name, spec):
        made.append(name)
        await client.create(SCHEDULERPROFILES, {"metadata": {"name": name}, "spec": spec})

    yield make
    for name in made:
        await client.delete(SCHEDULERPROFILES, name)


async def accepted(client, name):
    item = await client.get(SCHEDULERPROFILES, name)
    return next((c for c in item.get("status", {}).get("conditions", []) if c["type"] == "Accepted"), None)


async def test_profiles_are_followed_live_and_a_bad_one_harms_nobody(space, start, profile, client):
    await space.node("full", "4")
    await space.node("free", "4")
    start()
    await space.pod("filler", {"cpu": "1", "memory": "1Gi"}, nodeSelector={"kubernetes.io/hostname": "full"})
    await space.bound("filler")
    await space.pod("packed", {"cpu": "1", "memory": "1Gi"}, schedulerName="packer")
    strategy = {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}]}
    config = [{"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy}}]
    await profile("packer", {"schedulerName": "packer", "pluginConfig": config})
    assert await space.bound("packed") == {"packed": "full"}
    await profile("bad", {"schedulerName": "bad", "plugins": {"score": {"enabled": [{"name": "Nope"}]}}})
    condition = await eventually(lambda: accepted(client, "bad"))
    assert (condition["status"], condition["reason"]) == ("False", "Invalid")
    assert "no scheduler plugin is named 'Nope'" in condition["message"]
    assert (await eventually(lambda: accepted(client, "packer")))["status"] == "True"
    await space.pod("usual", {"cpu": "1", "memory": "1Gi"})
    assert await space.bound("usual") == {"usual": "free"}
