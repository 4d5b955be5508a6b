"""NodeAgentConfig, reviewed by the operator."""

import asyncio
import contextlib
import uuid

import pytest

from nodewright.controllers.configs.controller import ConfigController
from nodewright.framework.process import Options
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import NODEAGENTCONFIGS, NODES
from support.operator_thread import OperatorThread

pytestmark = pytest.mark.needs_cluster


@pytest.fixture
async def client(cluster, namespace):
    options = Options(kubeconfig=cluster.kubeconfig, lease_name=f"configs-{namespace}", metrics_port=None)
    thread = OperatorThread(options, [ConfigController])
    await thread.wait_started()
    async with Client(load(cluster.kubeconfig)) as client:
        yield client
    await thread.stop()


async def condition(client, name, kind, check):
    """Wait until a condition of an object satisfies the check; gives the object."""
    last = None
    async for event in client.watch(NODEAGENTCONFIGS, field_selector=f"metadata.name={name}", timeout_seconds=20):
        if event.type == "BOOKMARK":
            continue
        for last in (event.object.get("status") or {}).get("conditions") or []:
            if last["type"] == kind and check(last):
                return event.object
    raise AssertionError(f"{name}: {kind} is {last}")


def current(status, reason, generation=1):
    return lambda found: (found["status"], found["reason"], found["observedGeneration"]) == (status, reason, generation)


@pytest.fixture
async def pool(client):
    """Two Nodes with a label of this test's own; gives the selector."""
    label = f"pool-{uuid.uuid4().hex[:6]}"
    names = [f"{label}-{number}" for number in (1, 2)]
    for name in names:
        await client.create(NODES, {"metadata": {"name": name, "labels": {label: "yes"}}})
    yield label, names
    for name in names:
        with contextlib.suppress(NotFound):
            await client.delete(NODES, name)


def entries(name, *nodes, generation=1):
    condition = {"type": "Applied", "status": "True", "observedGeneration": generation}
    return {
        "apiVersion": "nodewright.dev/v1alpha1",
        "kind": "NodeAgentConfig",
        "metadata": {"name": name},
        "status": {"nodes": [{"name": node, "conditions": [condition]} for node in nodes]},
    }


async def test_node_agent_configs_are_reviewed(client, pool):
    label, (one, two) = pool
    name, rival = f"c-{uuid.uuid4().hex[:6]}", f"z-{uuid.uuid4().hex[:6]}"
    spec = {"nodeSelector": {"matchLabels": {label: "yes"}}, "maxPods": 20}
    await client.create(NODEAGENTCONFIGS, {"metadata": {"name": name}, "spec": spec})
    obj = await condition(client, name, "Applied", current("Unknown", "Waiting"))
    assert obj["status"]["selected"] == 2
    await condition(client, name, "Accepted", current("True", "Valid"))

    for node in (one, two):
        manager = f"nodewright-agent/{node}"
        await client.apply(NODEAGENTCONFIGS, entries(name, node), field_manager=manager, subresource="status")
    obj = await condition(client, name, "Applied", current("True", "Applied"))
    assert (obj["status"]["selected"], obj["status"]["applied"]) == (2, 2)
    assert not obj["metadata"].get("finalizers")
    assert not obj["metadata"].get("annotations")

    await asyncio.sleep(1.1)  # so that the rival is younger; times have seconds
    await client.create(NODEAGENTCONFIGS, {"metadata": {"name": rival}, "spec": {**spec, "maxPods": 30}})
    obj = await condition(client, rival, "Accepted", current("False", "Conflict"))
    (refused,) = [c for c in obj["status"]["conditions"] if c["type"] == "Accepted"]
    assert f"maxPods of {name} (on {one}, {two})" in refused["message"]
    await client.patch(NODEAGENTCONFIGS, rival, {"spec": {"priority": 1}})
    await condition(client, rival, "Accepted", current("True", "Valid", 2))

    await client.delete(NODES, two)
    obj = await condition(client, name, "Applied", lambda found: found["message"] == "1 of 1 nodes")
    assert [entry["name"] for entry in obj["status"]["nodes"]] == [one], "the entry of a Node that is gone goes"
    assert obj["status"]["selected"] == 1
    for each in (name, rival):
        await client.delete(NODEAGENTCONFIGS, each)
