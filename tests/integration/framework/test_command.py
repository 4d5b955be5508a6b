"""`nodewright operator` as a process: probes, rights, signals, errors."""

import asyncio
import json
import signal
import socket
import sys

import aiohttp
import pytest

pytestmark = pytest.mark.needs_cluster


class Process:
    """One run of the command; its JSON log lines are read as they come."""

    def __init__(self, process):
        self.process = process
        self.lines = []

    async def until(self, text):
        """The log line (as dict) that has the text in its message."""
        async with asyncio.timeout(30):
            while raw := await self.process.stderr.readline():
                self.lines.append(raw.decode())
                entry = json.loads(raw) if raw.startswith(b"{") else {"message": raw.decode()}
                if text in entry["message"]:
                    return entry
        raise AssertionError(f"{text!r} was not logged:\n{''.join(self.lines)}")

    async def end(self):
        """(exit code, the rest of standard error)."""
        async with asyncio.timeout(30):
            _, rest = await self.process.communicate()
        return self.process.returncode, rest.decode()


@pytest.fixture
async def start(cluster):
    running = []

    async def start(*arguments, kubeconfig=None):
        command = "from nodewright.cli.main import run; run()"
        config = kubeconfig or cluster.kubeconfig
        argv = [sys.executable, "-c", command, "operator", "--kubeconfig", str(config), *arguments]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        running.append(process)
        return Process(process)

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def get(port, path):
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_probes_metrics_and_an_orderly_end(start, cluster):
    """With the operator's own identity, so that its rights are tested too."""
    own = cluster.kubeconfig.parent / "operator.conf"
    process = await start("-v", kubeconfig=own)
    port = int((await process.until("serving probes and metrics"))["address"].rpartition(":")[2])
    await process.until("operator started")
    assert (await get(port, "/readyz?verbose")) == (200, "[+]caches ok\nreadyz check passed\n")
    assert (await get(port, "/livez"))[0] == 200
    _, metrics = await get(port, "/metrics")
    for name in (
        'workqueue_depth{controller="daemonset",name="daemonset"}',
        "workqueue_longest_running_processor_seconds",
        "controller_runtime_max_concurrent_reconciles",
        "rest_client_requests_total",
        'leader_election_master_status{name="nodewright-operator"} 1.0',
    ):
        assert name in metrics
    await process.until("Starting the watch-stream for nodeagentconfigs")
    process.process.send_signal(signal.SIGTERM)
    code, rest = await process.end()
    text = "".join(process.lines) + rest
    assert code == 0, text
    assert "released leadership" in text
    assert "Traceback" not in text
    assert "forbidden" not in text.lower()


async def test_a_standby_can_be_stopped_while_it_waits(start):
    leader = await start()
    await leader.until("operator started")
    standby = await start()
    await standby.until("another process leads")
    standby.process.send_signal(signal.SIGTERM)
    code, rest = await standby.end()
    assert code == 0, rest
    assert "Traceback" not in rest
    leader.process.send_signal(signal.SIGTERM)
    assert (await leader.end())[0] == 0


async def test_an_address_in_use_is_told_without_a_traceback(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await start("--no-leader-elect", "--metrics-bind", f"127.0.0.1:{taken.getsockname()[1]}")
        code, text = await process.end()
    assert code == 3
    assert "error: cannot serve probes and metrics" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--controllers", "nothing"), 2, "unknown controller 'nothing'; known are daemonset, apps-daemonset,"),
        (("--take-over", "batch/v1"), 2, "batch/v1"),
        (("--metrics-bind", "nowhere"), 2, "is not ADDR:PORT"),
        (("--kubeconfig", "/nonexistent"), 3, "/nonexistent"),
        (("--webhook-bind", ":0"), 2, "--webhook-bind needs --webhook-service, --webhook-configuration"),
    ],
)
async def test_wrong_options(start, arguments, code, text):
    process = await start(*arguments)
    ended, said = await process.end()
    assert ended == code
    assert text in said.replace("\n", " ")
    assert "Traceback" not in said
