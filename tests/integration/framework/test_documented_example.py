"""The controller in docs/writing-a-controller.md works as it stands there."""

import asyncio
import re
from pathlib import Path

import pytest

from nodewright.framework.process import Options
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import EVENTS, NODES, PODS
from support.operator_thread import OperatorThread

DOC = Path(__file__).parents[3] / "docs/writing-a-controller.md"


def documented_class():
    (source,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(source.splitlines()) <= 45
    scope = {"__name__": "documented_example"}
    exec(compile(source, str(DOC), "exec"), scope)
    return scope["ZoneLabels"]


@pytest.mark.needs_cluster
async def test_the_documented_controller_runs(cluster, namespace):
    options = Options(kubeconfig=cluster.kubeconfig, lease_name=f"example-{namespace}", metrics_port=None)
    thread = OperatorThread(options, [documented_class()])
    zone = "topology.kubernetes.io/zone"
    node = f"{namespace}-n"
    try:
        await thread.wait_started()
        async with Client(load(cluster.kubeconfig)) as client:
            await client.create(NODES, {"metadata": {"name": node, "labels": {zone: "a"}}})
            spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
            await client.create(PODS, {"metadata": {"name": "p"}, "spec": spec}, namespace)
            await seen(client, PODS, namespace, lambda p: labels(p).get(zone) == "a")
            await client.patch(NODES, node, {"metadata": {"labels": {zone: "b"}}})
            await seen(client, PODS, namespace, lambda p: labels(p).get(zone) == "b")
            event = await seen(client, EVENTS, namespace, lambda e: e["message"].endswith("zone b"))
            assert (event["reason"], event["source"]["component"]) == ("ZoneLabelled", "zone-labels-controller")
            await client.delete(PODS, "p", namespace, grace_period_seconds=0)
            await client.delete(NODES, node)
    finally:
        await thread.stop()


def labels(obj):
    return obj["metadata"].get("labels") or {}


async def seen(client, resource, namespace, condition):
    """The first object seen for which the condition holds."""

    found = asyncio.get_running_loop().create_future()
    cache = WatchCache(client, resource, type=dict, namespace=namespace)
    cache.add_handler(lambda _old, new: found.done() or (new and condition(new) and found.set_result(new)))
    task = asyncio.create_task(cache.run())
    try:
        async with asyncio.timeout(15):
            return await found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
