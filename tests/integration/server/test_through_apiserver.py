"""The agent's server behind a real kube-apiserver: its client certificate, its reviews, `kubectl logs`."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest

from nodewright.controlplane.certificates import Certificates
from nodewright.controlplane.slots import NodeHost
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.objects import Pod
from nodewright.kube.resources import NODES, PODS, SERVICEACCOUNTS
from nodewright_agent.server.authn import Authenticator
from nodewright_agent.server.authz import Authorizer
from nodewright_agent.server.server import KubeletServer
from nodewright_agent.server.tls import ServingTLS

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]

T = "2016-10-06T00:17:09.669794202Z"
NODE = "log-node"


class Pods:
    """A view with one running container that logs to a file."""

    def __init__(self, root: Path, pod: Pod) -> None:
        self.log_root = root
        self.pod = pod
        self.exited = asyncio.Event()

    def pods(self):
        return [self.pod]

    def running_pods(self):
        return [self.pod]

    def log_parts(self, pod, container, container_id):
        return ("p", container, "0.log")

    async def wait_exited(self, container_id):
        await self.exited.wait()

    def config(self):
        return {}


def files(cluster, name):
    certificates = Certificates(cluster.layout, cluster.state)
    certificates.ensure_nodes([NodeHost(1, NODE, "", "127.0.0.1")])
    return certificates.pair(name)


@pytest.fixture
async def admin(cluster):
    async with Client(load(cluster.kubeconfig)) as client:
        yield client


@pytest.fixture
async def log(tmp_path):
    path = tmp_path / "logs" / "p" / "c" / "0.log"
    path.parent.mkdir(parents=True)
    path.write_text(f"{T} stdout F hello\n{T} stdout F world\n")
    return path


@pytest.fixture
async def pods(cluster, admin, namespace, log):
    spec = {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]}
    await admin.create(PODS, {"metadata": {"name": "p"}, "spec": spec}, namespace)
    status = {"name": "c", "ready": True, "restartCount": 0, "image": "i", "imageID": "", "containerID": "nodewright://1",
              "state": {"running": {"startedAt": T}}}  # fmt: skip
    patch = {"status": {"phase": "Running", "containerStatuses": [status]}}
    pod = await admin.patch(PODS, "p", patch, namespace, subresource="status", type=Pod)
    yield Pods(log.parents[2], pod)
    await admin.delete(PODS, "p", namespace, grace_period_seconds=0)


@pytest.fixture
async def server(cluster, admin, pods):
    pair = files(cluster, f"node-{NODE}-server")
    async with Client(load(cluster.layout.kubeconfig(f"node-{NODE}"))) as node:
        made = KubeletServer(
            pods,
            node_name=NODE,
            tls=ServingTLS(pair.cert, pair.key, cluster.layout.pki / "ca.crt"),
            authenticator=Authenticator(node),
            authorizer=Authorizer(node, NODE),
            address="127.0.0.1",
            port=0,
        )
        await made.start()
        await node.create(NODES, {"metadata": {"name": NODE}})
        status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                  "daemonEndpoints": {"kubeletEndpoint": {"Port": made.port}}}  # fmt: skip
        await node.patch(NODES, NODE, {"status": status}, subresource="status")
        yield made
        await made.stop()
        await admin.delete(NODES, NODE)


async def test_kubectl_logs(server, namespace, kubectl):
    assert await asyncio.to_thread(kubectl, "logs", "-n", namespace, "p") == "hello\nworld\n"
    assert await asyncio.to_thread(kubectl, "logs", "-n", namespace, "p", "--tail=1", "--timestamps") == f"{T} world\n"
    with pytest.raises(RuntimeError, match='previous terminated container "c" in pod "p" not found'):
        await asyncio.to_thread(kubectl, "logs", "-n", namespace, "p", "--previous")


async def test_following_through_the_api_server(server, namespace, admin, log, pods):
    stream = admin.stream(f"/api/v1/namespaces/{namespace}/pods/p/log", params={"follow": "true", "tailLines": "1"})
    async with asyncio.timeout(30):
        assert await anext(stream) == b"world\n"
        with log.open("a") as file:
            file.write(f"{T} stderr F more\n")
        assert await anext(stream) == b"more\n"
        pods.exited.set()
        assert [chunk async for chunk in stream] == []


async def test_tokens_and_rbac(server, cluster, admin, namespace):
    answer = await admin.create(
        SERVICEACCOUNTS, {"spec": {"expirationSeconds": 600}}, namespace, name="default", subresource="token"
    )
    other = await admin.create(
        SERVICEACCOUNTS, {"spec": {"expirationSeconds": 600, "audiences": ["elsewhere"]}}, namespace,
        name="default", subresource="token",
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(cluster.layout.pki / "ca.crt"))
    url = f"https://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def get(path, token):
            async with session.get(url + path, headers={"Authorization": f"Bearer {token}"}) as response:
                return response.status, await response.text()

        status, text = await get("/metrics", answer["status"]["token"])
        assert status == 403
        assert f"user=system:serviceaccount:{namespace}:default, verb=get" in text
        assert (await get("/metrics", other["status"]["token"]))[0] == 401
        assert (await get("/metrics", "rubbish"))[0] == 401
        async with session.get(url + "/healthz") as response:
            assert response.status == 401
