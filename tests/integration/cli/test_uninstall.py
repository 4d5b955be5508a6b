"""`nodewright uninstall` against the real API server; the test is kubelet and agent, our operator serves DaemonSets."""

import asyncio
import contextlib

import pytest

from nodewright.cli.output import TIMED_OUT, CliError
from nodewright.cli.uninstalling import TAINT, Uninstaller
from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.framework.process import Options
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import APPS_DAEMONSETS, NODES, PODS
from support.operator_thread import OperatorThread

pytestmark = pytest.mark.needs_cluster

IMAGE = "registry.invalid/x"


@pytest.fixture
async def client(controller_manager):
    kubeconfig = controller_manager.layout.kubeconfig("operator")
    options = Options(kubeconfig=kubeconfig, leader_elect=False, metrics_port=None)
    thread = OperatorThread(options, [AppsDaemonSetController])
    try:
        await thread.wait_started()
        async with Client(load(controller_manager.kubeconfig)) as opened:
            yield opened
    finally:
        await thread.stop()


def pod(name, node, **spec):
    containers = [{"name": "a", "image": IMAGE}]
    spec = {"nodeName": node, "containers": containers, "terminationGracePeriodSeconds": 30} | spec
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def daemonset(name, selector):
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "containers": [{"name": "a", "image": IMAGE}],
            "nodeSelector": selector,
            "tolerations": [{"operator": "Exists"}],
        },
    }
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}, "spec": spec}


class Lab:
    """One kubelet's Node, one agent's Node, the three DaemonSets, Pods on both."""

    def __init__(self, client, namespace):
        self.client, self.namespace = client, namespace
        self.host, self.ours = f"{namespace}-host", f"{namespace}-ours"
        self.selector = f"test/agent={namespace}"
        self.said = []
        self.ends_pods = True

    async def make(self):
        for name, labels in ((self.host, {"test/host": self.namespace}), (self.ours, {"test/agent": self.namespace})):
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            await self.client.create(NODES, node)
            await self.set_ready(name)
        for name in ("x-agent", "x-proxy", "x-cleanup"):
            await self.client.create(APPS_DAEMONSETS, daemonset(name, {"test/host": self.namespace}), self.namespace)
        for name, node in (("elsewhere", self.host), ("one", self.ours), ("two", self.ours)):
            await self.client.create(PODS, pod(name, node), self.namespace)

    async def set_ready(self, name, status="True"):
        conditions = [{"type": "Ready", "status": status, "reason": "Test"}]
        await self.client.patch(NODES, name, {"status": {"conditions": conditions}}, subresource="status")

    async def be_kubelet(self):
        """Make Pods Ready, and end those that are to end."""
        while True:
            for item in (await self.client.list(PODS, self.namespace)).items:
                meta, node = item["metadata"], item["spec"].get("nodeName")
                with contextlib.suppress(NotFound):
                    if "deletionTimestamp" in meta and (node == self.host or self.ends_pods):
                        await self.client.delete(PODS, meta["name"], self.namespace, grace_period_seconds=0)
                    elif node and item["status"].get("phase") != "Running":
                        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                        await self.client.patch(
                            PODS, meta["name"], {"status": ready}, self.namespace, subresource="status"
                        )
            await asyncio.sleep(0.1)

    async def be_scheduler(self):
        """Bind the DaemonSets' Pods."""
        while True:
            for item in (await self.client.list(PODS, self.namespace, field_selector="spec.nodeName=")).items:
                name = item["metadata"]["name"]
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
                binding["target"] = {"kind": "Node", "name": self.host}
                with contextlib.suppress(NotFound):
                    await self.client.create(PODS, binding, self.namespace, name=name, subresource="binding")
            await asyncio.sleep(0.1)

    async def uninstall(self, timeout=60.0, cleanup="x-cleanup"):
        uninstaller = Uninstaller(self.client, self.namespace, timeout, self.said.append)
        await uninstaller.run(self.selector, ["x-agent", "x-proxy"], cleanup)

    async def names(self, resource, **more):
        namespace = self.namespace if resource.namespaced else None
        return sorted(item["metadata"]["name"] for item in (await self.client.list(resource, namespace, **more)).items)


@pytest.fixture
async def lab(client, namespace):
    here = Lab(client, namespace)
    await here.make()
    tasks = [asyncio.create_task(here.be_kubelet()), asyncio.create_task(here.be_scheduler())]
    yield here
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for name in (here.host, here.ours):
        with contextlib.suppress(NotFound):
            await client.delete(NODES, name)


async def test_everything_of_ours_goes_and_nothing_else(lab):
    await lab.uninstall()
    assert lab.ours not in await lab.names(NODES)
    assert lab.host in await lab.names(NODES)
    assert await lab.names(APPS_DAEMONSETS) == ["x-cleanup"]
    left = await lab.names(PODS)
    assert "elsewhere" in left
    assert not {"one", "two"} & set(left)
    assert f"{lab.ours}: ending 2 Pods" in lab.said
    assert "1 hosts are clean" in lab.said
    assert lab.said[-1] == "1 Nodes removed"

    lab.said.clear()
    await lab.uninstall()
    assert lab.said == [
        "DaemonSet x-agent is gone",
        "DaemonSet x-proxy is gone",
        "1 hosts are clean",
        "0 Nodes removed",
    ]


async def test_pods_that_do_not_end_are_left_to_the_clean_up(lab):
    lab.ends_pods = False
    await lab.uninstall(timeout=10.0)
    late = [text for text in lab.said if "have not ended in time" in text]
    assert late == [f"{lab.ours}: have not ended in time, and will be by the clean-up: "
                    f"{lab.namespace}/one, {lab.namespace}/two"]  # fmt: skip
    assert not {"one", "two"} & set(await lab.names(PODS))
    assert lab.ours not in await lab.names(NODES)


async def test_a_silent_agent_is_not_waited_for(lab):
    lab.ends_pods = False
    await lab.set_ready(lab.ours, "Unknown")
    begun = asyncio.get_running_loop().time()
    await lab.uninstall()
    assert asyncio.get_running_loop().time() - begun < 25
    assert any("the agent does not answer" in text for text in lab.said)


async def test_a_host_that_is_not_cleaned_keeps_the_nodes(lab):
    with pytest.raises(CliError) as caught:
        await lab.uninstall(timeout=6.0, cleanup="x-nosuch")
    assert caught.value.exit_code == TIMED_OUT
    assert caught.value.message == "there is no DaemonSet x-nosuch (after 6 s)"
    node = await lab.client.get(NODES, lab.ours)
    assert {"key": TAINT, "effect": "NoSchedule"} in node["spec"]["taints"]
