"""NodeAgentConfig, served by kopf."""

import uuid

import pytest

from nodewright.controllers.configs.controller import ConfigController
from nodewright.framework.process import Options
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import NODEAGENTCONFIGS
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


async def accepted(client, resource, name, generation):
    """Wait for the Accepted condition of a generation; gives (status, reason)."""
    async for event in client.watch(resource, field_selector=f"metadata.name={name}", timeout_seconds=20):
        if event.type == "BOOKMARK":
            continue
        for condition in (event.object.get("status") or {}).get("conditions") or []:
            if condition["type"] == "Accepted" and condition["observedGeneration"] == generation:
                return condition["status"], condition["reason"], event.object
    raise AssertionError(f"{name} was not reviewed")


async def test_node_agent_configs_are_reviewed(client):
    name = f"c-{uuid.uuid4().hex[:6]}"
    await client.create(NODEAGENTCONFIGS, {"metadata": {"name": name}, "spec": {"proxy": {"mode": "auto"}}})
    status, reason, obj = await accepted(client, NODEAGENTCONFIGS, name, 1)
    assert (status, reason) == ("False", "NotApplied")
    assert not obj["metadata"].get("finalizers")
    await client.patch(NODEAGENTCONFIGS, name, {"spec": {"proxy": {"mode": "ipvs"}}})
    await accepted(client, NODEAGENTCONFIGS, name, 2)
    stored = await client.get(NODEAGENTCONFIGS, name)
    # kopf writes its annotation a moment after our handler has written the status
    assert all(key.startswith("nodewright.dev/") for key in stored["metadata"].get("annotations") or {})
    await client.delete(NODEAGENTCONFIGS, name)
