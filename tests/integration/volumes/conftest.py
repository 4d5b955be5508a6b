"""A node's identity on the real API server, so that the Node authorizer judges every request."""

import json
import uuid

import pytest

from nodewright.controlplane.certificates import Certificates
from nodewright.controlplane.slots import NodeHost
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.objects import Pod
from nodewright.kube.resources import PODS
from nodewright_agent.pods.volumes.manager import VolumeManager


@pytest.fixture(scope="session")
def node(cluster, kubectl):
    """The name of a registered Node; its kubeconfig is made the product's way."""
    name = "volumes-node"
    Certificates(cluster.layout, cluster.state).ensure_nodes([NodeHost(1, name, "none", "127.0.0.1")])
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
    return name


@pytest.fixture
async def admin(cluster):
    async with Client(load(cluster.kubeconfig)) as client:
        yield client


@pytest.fixture
async def agent(cluster, node):
    async with Client(load(cluster.layout.kubeconfig(f"node-{node}"))) as client:
        yield client


@pytest.fixture
def reports():
    return []


@pytest.fixture
async def manager(agent, tmp_path, reports):
    made = VolumeManager(
        agent,
        tmp_path / "state",
        on_failed=lambda pod, message: reports.append(message),
        on_wake=lambda uid: reports.append(("wake", uid)),
    )
    yield made
    uids = made.known()
    await made.close()
    for uid in uids:
        await made.teardown(uid)


@pytest.fixture
def make_pod(admin, namespace, node):
    """Creates a Pod bound to the node and returns it as the server stored it; what `c` does not mount, another does."""

    async def make(volumes, *, mounts=(), **spec):
        given = {mount["name"] for mount in mounts}
        rest = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes if v["name"] not in given]
        document = {
            "metadata": {"name": f"p-{uuid.uuid4().hex[:6]}", "namespace": namespace, "labels": {"app": "x"}},
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": False,
                "containers": [
                    {"name": "c", "image": "x", "volumeMounts": list(mounts)},
                    {"name": "rest", "image": "x", "volumeMounts": rest},
                ],
                "volumes": list(volumes),
            }
            | spec,
        }
        return await admin.create(PODS, document, namespace, type=Pod)

    return make
