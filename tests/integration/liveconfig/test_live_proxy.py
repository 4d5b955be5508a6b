"""NodeAgentConfig and the proxy: a real API server, real nftables in a node of its own."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.proxy.port_forward import PortForward
from integration.proxy.proxy_lab import PODS, Lab
from integration.proxy.test_proxy_live import Program, eventually, put_service
from nodewright.kube.config import load

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]

NODE = "lab-node"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        for number in PODS:
            made.serve(number)
        yield made
    finally:
        made.close()


@pytest.fixture
def node(kubectl: Callable[..., str]) -> Iterator[str]:
    """The Node that the proxy says it is; nobody keeps it alive, and nobody needs to."""
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"pool": "x"}}}
    kubectl("apply", "-f", "-", stdin=json.dumps(body))
    yield NODE
    kubectl("delete", "node", NODE)


@pytest.fixture
def program(lab: Lab, cluster: Any, node: str, tmp_path: Path) -> Iterator[Program]:
    forward = PortForward(lab.path("node"), urlsplit(load(cluster.kubeconfig).server).port or 443)
    made = Program(lab, cluster.kubeconfig, tmp_path / "proxy.log")
    made.start()
    try:
        yield made
    except BaseException:
        print(made.log)
        raise
    finally:
        made.stop(kill=True)
        subprocess.run(made.arguments("--cleanup"), check=True, capture_output=True)
        forward.close()


class Configs:
    """Makes NodeAgentConfigs with names of this test's own, and reads what the node says."""

    def __init__(self, kubectl: Callable[..., str]) -> None:
        self._kubectl, self._tag = kubectl, uuid.uuid4().hex[:6]
        self.made: set[str] = set()

    def put(self, name: str, **spec: Any) -> None:
        body = {
            "apiVersion": "nodewright.dev/v1alpha1",
            "kind": "NodeAgentConfig",
            "metadata": {"name": self.full(name)},
            "spec": spec,
        }
        self.made.add(self.full(name))
        self._kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def full(self, name: str) -> str:
        return f"{name}-{self._tag}"

    def get(self, name: str) -> Any:
        return json.loads(self._kubectl("get", "nodeagentconfig", self.full(name), "-o", "json"))

    def entry(self, name: str) -> Any:
        """The node's entry, once it is about the present generation; None else."""
        obj = self.get(name)
        entries = [one for one in obj.get("status", {}).get("nodes", []) if one["name"] == NODE]
        if not entries or entries[0].get("observedGeneration") != obj["metadata"]["generation"]:
            return None
        return entries[0]

    def applied(self, name: str) -> tuple[str, str]:
        """Status and reason of the node's Applied condition."""
        entry = self.entry(name)
        if entry is None:
            return "", ""
        (condition,) = entry["conditions"]
        assert condition["type"] == "Applied"
        return condition["status"], condition["reason"]

    def delete(self, name: str) -> None:
        self._kubectl("delete", "nodeagentconfig", self.full(name))
        self.made.discard(self.full(name))


@pytest.fixture
def configs(kubectl: Callable[..., str]) -> Iterator[Configs]:
    made = Configs(kubectl)
    yield made
    for name in made.made:
        kubectl("delete", "nodeagentconfig", name)


def test_two_configs_labels_and_an_impossible_mode(
    program: Program, lab: Lab, configs: Configs, kubectl: Callable[..., str], namespace: str
) -> None:
    def until(check: Callable[[], Any], what: str) -> Any:
        return eventually(check, what, lambda: program.log)

    address = put_service(kubectl, namespace, "web", *PODS)
    until(lambda: lab.tcp("client", address, 80, timeout=1), "first answer")
    configs.put("all", proxy={"mode": "nftables"})
    until(lambda: configs.applied("all") == ("True", "Applied"), "the only object is applied")
    entry = configs.entry("all")
    assert entry["proxyMode"] == "nftables"
    assert entry["proxyReason"] == f"chosen by NodeAgentConfig {configs.full('all')}"

    configs.put("pool", priority=5, nodeSelector={"matchLabels": {"pool": "x"}}, proxy={"mode": "ipvs"})
    until(lambda: configs.applied("pool") == ("False", "NotPossible"), "an impossible mode is said")
    assert "ip_vs" in configs.entry("pool")["conditions"][0]["message"]
    assert configs.entry("pool")["proxyMode"] == "nftables"
    until(lambda: configs.applied("all") == ("True", "Overridden"), "the other one is overridden")
    assert lab.tcp("client", address, 80, timeout=1), "the rules that work stay"

    def warned() -> bool:
        listed = json.loads(kubectl("get", "events", "-n", "default", "-o", "json"))["items"]
        found = [item for item in listed if item["reason"] == "ProxyModeNotPossible"]
        return any(item["involvedObject"]["name"] == NODE and item["type"] == "Warning" for item in found)

    until(warned, "an event")
    kubectl("label", "node", NODE, "pool-")
    until(lambda: not configs.get("pool").get("status", {}).get("nodes"), "the entry goes with the label")
    until(lambda: configs.applied("all") == ("True", "Applied"), "and the other object has its way again")
    kubectl("label", "node", NODE, "pool=x")
    until(lambda: configs.applied("pool") == ("False", "NotPossible"), "and comes back with it")
    configs.delete("pool")
    until(lambda: configs.applied("all") == ("True", "Applied"), "an object that is deleted has no say")


def test_a_restart_takes_up_the_settings_and_nothing_is_written_without_need(
    program: Program, configs: Configs
) -> None:
    configs.put("all", proxy={"mode": "nftables"}, maxPods=20)
    eventually(lambda: configs.applied("all") == ("True", "Applied"), "applied", lambda: program.log)
    message = configs.entry("all")["conditions"][0]["message"]
    assert message == "maxPods: this node's kubelet is not Nodewright's"
    version = configs.get("all")["metadata"]["resourceVersion"]
    program.stop()
    program.start()
    eventually(lambda: "proxy rules synced" in program.log.split("stopped")[-1], "synced", lambda: program.log)
    time.sleep(1.5)
    assert configs.get("all")["metadata"]["resourceVersion"] == version
    assert "proxy mode switched" not in program.log


def test_an_agent_of_the_same_name_has_the_say_about_applied(
    program: Program, configs: Configs, kubectl: Callable[..., str]
) -> None:
    """Both write one entry; the proxy keeps to its own part."""
    info = dict.fromkeys(
        ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "kubeletVersion", "kubeProxyVersion"), ""
    )
    info |= {"operatingSystem": "linux", "architecture": "amd64", "containerRuntimeVersion": "nodewright://0.1.0"}
    patch = json.dumps({"status": {"nodeInfo": info}})
    kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", patch)
    kubectl("label", "node", NODE, "agent=yes")
    configs.put("mine", proxy={"mode": "nftables"}, nodeSelector={"matchLabels": {"agent": "yes"}})

    def mine() -> Any:
        return configs.get("mine").get("status", {}).get("nodes")

    (entry,) = eventually(mine, "the entry", lambda: program.log)
    assert [one["type"] for one in entry["conditions"]] == ["ProxyApplied"]
    agents = {
        "apiVersion": "nodewright.dev/v1alpha1",
        "kind": "NodeAgentConfig",
        "metadata": {"name": configs.full("mine")},
        "status": {
            "nodes": [{"name": NODE, "observedGeneration": 1, "conditions": [{"type": "Applied", "status": "True"}]}]
        },
    }
    apply = ("apply", "--server-side", "--subresource=status", f"--field-manager=nodewright-agent/{NODE}", "-f", "-")
    kubectl(*apply, stdin=json.dumps(agents))
    (entry,) = mine()
    assert sorted(one["type"] for one in entry["conditions"]) == ["Applied", "ProxyApplied"]
    assert (entry["proxyMode"], entry["observedGeneration"]) == ("nftables", 1)
    kubectl("label", "node", NODE, "agent-")
    eventually(
        lambda: [c["type"] for c in mine()[0]["conditions"]] == ["Applied"],
        "only the agent's part is left",
        lambda: program.log,
    )
    assert "proxyMode" not in mine()[0]
