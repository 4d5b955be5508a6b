"""hostPort of real Pods: reached at the node, refused where it is taken, kept over a kill, given back at the end."""

import signal
import subprocess
import urllib.request

import pytest

from nodewright_agent.network import hostports
from support.agent_node import wait_until
from support.pod_lab import PodLab

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]
PORT = 31080


def serving(name: str, **port: object) -> dict[str, object]:
    command = ["/bin/sh", "-c", "exec /bin/serve"]
    env = [{"name": "POD_NAME", "value": name}]
    return {"command": command, "env": env, "ports": [{"containerPort": 8080, "hostPort": PORT, **port}]}


def answer(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}:{PORT}/", timeout=2) as got:
            return str(got.read().decode())
    except OSError:
        return ""


def table() -> str:
    command = ["nft", "list", "table", "ip", hostports.TABLE]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_a_host_port(own_lab: PodLab) -> None:
    lab = own_lab
    lab.create("first", container=serving("first"))
    lab.wait_phase("first", "Running")
    wait_until("it answers", lambda: answer("127.0.0.1").startswith("pod=first"))
    assert answer("10.222.7.1").startswith("pod=first"), "at every address of the node"

    lab.create("second", container=serving("second", hostIP="127.0.0.1"))
    refused = lab.wait_phase("second", "Failed")
    assert refused.status.reason == "NodePorts"
    text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    assert refused.status.message == f"Pod was rejected: {text}"
    lab.create("datagrams", container=serving("datagrams", protocol="UDP"))
    lab.wait_phase("datagrams", "Running")

    lab.node.stop(signal.SIGKILL)
    assert answer("127.0.0.1").startswith("pod=first")
    lab.node.start()
    lab.create("next")
    lab.wait_phase("next", "Running")
    assert answer("127.0.0.1").startswith("pod=first")
    lab.delete("first")
    lab.wait_gone("first")
    assert answer("127.0.0.1") == ""
    lab.create("third", container=serving("third", hostIP="127.0.0.1"))
    lab.wait_phase("third", "Running")
    wait_until("the next one has the port", lambda: answer("127.0.0.1").startswith("pod=third"))
    for name in ("third", "datagrams"):
        lab.delete(name)
        lab.wait_gone(name)
    assert table() == ""


def test_a_port_that_cannot_be_had_is_told(own_lab: PodLab) -> None:
    own_lab.create("six", container=serving("six", hostIP="::1"))
    own_lab.wait_event("six", "FailedCreatePodSandBox", "pods of this node have IPv4 addresses only")
