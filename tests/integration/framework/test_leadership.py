"""Operator and scheduler in two replicas: a standby is ready, a leader that lost its Lease ends at once."""

import asyncio
import signal
import sys
import time

import aiohttp
import pytest

from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import LEASES

from .test_command import Process

pytestmark = pytest.mark.needs_cluster

VERBS = ("operator", "scheduler")


@pytest.fixture
async def start(cluster, namespace):
    """Start a verb with its Lease in the test's namespace."""
    running = []

    async def start(verb):
        code = "from nodewright.cli.main import run; run()"
        arguments = ["--kubeconfig", str(cluster.kubeconfig), "--leader-elect-namespace", namespace]
        arguments += ["--metrics-bind", "127.0.0.1:0"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, verb, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(process)
        return Process(process)

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def probe(port, path):
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def port_of(process):
    line = await process.until("serving probes and metrics")
    return int(line["port"]) if "port" in line else int(line["address"].rpartition(":")[2])


@pytest.mark.parametrize("verb", VERBS)
async def test_a_standby_is_ready_and_a_deposed_leader_ends(start, cluster, namespace, verb):
    leader = await start(verb)
    await leader.until("became leader")
    standby = await start(verb)
    port = await port_of(standby)
    await standby.until("another process leads")
    async with asyncio.timeout(15):
        while (await probe(port, "/readyz"))[0] != 200:  # noqa: ASYNC110 - another process has no event for us
            await asyncio.sleep(0.1)
    for path in ("/healthz", "/livez"):
        assert await probe(port, path) == (200, "ok")
    assert f'leader_election_master_status{{name="nodewright-{verb}"}} 0.0' in (await probe(port, "/metrics"))[1]
    async with Client(load(cluster.kubeconfig)) as client:
        taken = {"spec": {"holderIdentity": "somebody-else"}}
        started = time.monotonic()
        await client.patch(LEASES, f"nodewright-{verb}", taken, namespace)
    code, said = await leader.end()
    assert code == 1, said
    assert time.monotonic() - started < 8
    assert "leadership lost" in said
    assert "somebody-else" in said
    assert "Traceback" not in said
    standby.process.send_signal(signal.SIGTERM)
    assert (await standby.end())[0] == 0
