"""`helm install`: the operator starts while its CustomResourceDefinitions are still on their way."""

import asyncio
import json
import sys

import pytest

from nodewright.controlplane import manifests
from nodewright.controlplane.bootstrap import FIELD_MANAGER, apply_all
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import CLUSTERROLEBINDINGS, CLUSTERROLES, NODEAGENTCONFIGS, ROLEBINDINGS, ROLES

from .test_command import Process, get

pytestmark = pytest.mark.needs_cluster

RBAC = {r.kind: r for r in (CLUSTERROLES, CLUSTERROLEBINDINGS, ROLES, ROLEBINDINGS)}


@pytest.fixture
async def bare(make_cluster, binaries):
    """A cluster with our roles, without our kinds."""
    cluster = make_cluster("bare")
    cluster.prepare()
    cluster.start_etcd(binaries["etcd"], unsafe_no_fsync=True)
    cluster.start_apiserver(binaries["kube-apiserver"])
    async with Client(load(cluster.kubeconfig)) as client:
        for obj in manifests.rbac():
            await client.apply(RBAC[obj["kind"]], obj, field_manager=FIELD_MANAGER)
    return cluster


async def test_it_waits_for_its_kinds_without_noise(bare):
    own = bare.kubeconfig.parent / "operator.conf"
    code = "from nodewright.cli.main import run; run()"
    arguments = ["operator", "--kubeconfig", str(own), "--metrics-bind", "127.0.0.1:0"]
    process = Process(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        line = await process.until("serving probes and metrics")
        port = int(line["address"].rpartition(":")[2])
        waiting = await process.until("waiting for CustomResourceDefinitions")
        assert waiting["missing"] == "daemonsets.nodewright.dev,nodeagentconfigs.nodewright.dev"
        status, text = await get(port, "/readyz")
        assert status == 503
        assert "no CustomResourceDefinition yet: daemonsets.nodewright.dev, nodeagentconfigs.nodewright.dev" in text
        assert (await get(port, "/livez"))[0] == 200  # restarting would not help

        await asyncio.to_thread(apply_all, bare.kubeconfig)
        async with asyncio.timeout(8):
            await process.until("operator started")
        assert (await get(port, "/readyz"))[0] == 200
        async with Client(load(bare.kubeconfig)) as client:
            # kopf has found the kind too: the review writes a status
            await client.create(
                NODEAGENTCONFIGS,
                {"metadata": {"name": "first"}, "spec": {}},
            )
            await process.until("reviewed")
    finally:
        process.process.terminate()
        ended, rest = await process.end()
    assert ended == 0, rest
    loud = [
        entry
        for line in [*process.lines, *rest.splitlines()]
        if line.startswith("{") and (entry := json.loads(line))["level"].upper() in ("WARNING", "ERROR", "CRITICAL")
    ]
    assert loud == []
