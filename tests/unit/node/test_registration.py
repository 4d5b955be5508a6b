"""Registration beside a kubelet, and the routes of such a node."""

import asyncio

import msgspec
import pytest

from nodewright.kube.codec import ObjectList
from nodewright.kube.errors import AlreadyExists, NotFound
from nodewright.kube.objects import Node, NodeStatus
from nodewright_agent import config as settings
from nodewright_agent.network.addresses import NodeRoute
from nodewright_agent.node import podcidr, registration
from nodewright_agent.node.facts import HostFacts
from nodewright_agent.node.networking import NodeNetworking

FACTS = HostFacts("m", "u", "b", "6.1", "Debian", "amd64", 4, 8 << 30, 100 << 30, {})
ZONE, REGION = registration.TOPOLOGY_LABELS
OS = ["kubernetes.io/os", "beta.kubernetes.io/os"]


def node(name, labels=None, cidr="", ip="", kind="InternalIP"):
    addresses = [{"type": kind, "address": ip}] if ip else []
    body = {
        "metadata": {"name": name, "labels": labels or {}, "resourceVersion": "1"},
        "spec": {"podCIDR": cidr},
        "status": {"addresses": addresses},
    }
    return msgspec.convert(body, Node)


class Api:
    """Nodes by name; what one account may see of them."""

    def __init__(self, nodes, visible=None):
        self.nodes, self.visible, self.patches = nodes, visible, []

    async def create(self, resource, made, *, type):
        if made.metadata.name in self.nodes:
            raise AlreadyExists(409, "AlreadyExists", "")
        self.nodes[made.metadata.name] = made
        return made

    async def get(self, resource, name, *, type):
        if name not in self.nodes or (self.visible is not None and name != self.visible):
            raise NotFound(404, "NotFound", f'nodes "{name}" not found')
        return self.nodes[name]

    async def list(self, resource, *, type):
        return ObjectList([*self.nodes.values()], "5")

    async def patch(self, resource, name, body, *, type, kind):
        self.patches.append(body["metadata"]["labels"])
        self.nodes[name].metadata.labels.update(body["metadata"]["labels"])
        return self.nodes[name]


def load(**given):
    base = {"node_name": "n1", "node_ip": "192.0.2.1", "host_node_name": "host-1", "omit_node_labels": OS}
    return settings.load(None, **{**base, **given})


async def register(nodes, config):
    own = Api(nodes, visible="n1")
    made = await registration.register(own, Api(nodes), config, FACTS, NodeStatus())
    return made, own.patches


async def test_zone_and_region_come_from_the_hosts_node():
    nodes = {"host-1": node("host-1", {ZONE: "z1", REGION: "r1", "team": "x", "kubernetes.io/os": "linux"})}
    made, patches = await register(nodes, load(copy_topology_labels=True))
    assert (made.metadata.labels[ZONE], made.metadata.labels[REGION]) == ("z1", "r1")
    assert "team" not in made.metadata.labels
    assert "kubernetes.io/os" not in made.metadata.labels
    assert patches == []
    nodes["host-1"].metadata.labels[ZONE] = "z2"
    _, patches = await register(nodes, load(copy_topology_labels=True))  # the host moved, and the agent started anew
    assert patches == [{ZONE: "z2"}]
    _, patches = await register(nodes, load(copy_topology_labels=True, node_labels={ZONE: "mine"}))
    assert patches == []


async def test_omitted_labels_are_not_put_back_and_not_taken_from_others():
    made, patches = await register({"n1": node("n1", {"nodewright.dev/host": "old"})}, load())
    assert not {*OS} & {*made.metadata.labels}
    assert patches == [
        {
            "kubernetes.io/hostname": "n1",
            "kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/arch": "amd64",
            "nodewright.dev/agent": "true",
            "nodewright.dev/host": "host-1",
        }
    ]
    _, patches = await register({"n1": node("n1", {**made.metadata.labels, "kubernetes.io/os": "linux"})}, load())
    assert patches == []  # somebody wants it


async def test_without_the_hosts_node_registration_waits_for_it(monkeypatch, caplog):
    monkeypatch.setattr(registration, "RETRY_FIRST", 0.001)
    nodes = {}
    task = asyncio.create_task(register(nodes, load(copy_topology_labels=True)))
    async with asyncio.timeout(5):
        while 'nodes "host-1" not found' not in caplog.text:  # noqa: ASYNC110 - a log tells no event
            await asyncio.sleep(0.001)
    assert "n1" not in nodes
    nodes["host-1"] = node("host-1", {ZONE: "z1"})
    made, _ = await asyncio.wait_for(task, 15)
    assert made.metadata.labels[ZONE] == "z1"


async def claimed(tmp_path, others, pods=("10.1.0.7",), **given):
    """Register anew while pods have addresses of 10.1.0.0/24; return the Node's CIDR."""
    config = load(state_dir=str(tmp_path), **given)
    podcidr.remember(config.state, "10.1.0.0/24")
    (config.state / "network" / "ipam").mkdir(exist_ok=True)
    for address in pods:
        (config.state / "network" / "ipam" / address).write_text("uid")
    made, _ = await register({one.metadata.name: one for one in others}, config)
    return made.spec.pod_cidr


async def test_a_node_that_was_deleted_gets_back_the_addresses_of_its_pods(tmp_path):
    assert await claimed(tmp_path, [node("n2", cidr="10.1.1.0/24")]) == "10.1.0.0/24"


async def test_addresses_that_another_node_was_given_are_not_claimed(tmp_path):
    assert await claimed(tmp_path, [node("n2", cidr="10.1.0.0/24")]) == ""


async def test_a_node_without_pods_takes_what_the_cluster_gives(tmp_path):
    assert await claimed(tmp_path, [], pods=()) == ""


async def test_a_node_that_is_there_keeps_what_it_has(tmp_path):
    assert await claimed(tmp_path, [node("n1", cidr="10.1.9.0/24")]) == "10.1.9.0/24"


class Keeper:
    def __init__(self):
        self.problems = {}

    def on_change(self, listener):
        pass

    def report(self, component, problem):
        self.problems[component] = problem


class Network:
    def __init__(self):
        self.routes, self.synced = None, asyncio.Event()

    async def start(self, pod_cidr):
        pass

    async def keep(self):
        await asyncio.Event().wait()

    async def sync_routes(self, wanted):
        self.routes = wanted
        self.synced.set()


class Lister:
    """Lists the nodes once, as the label selector has it, and then is silent."""

    def __init__(self, nodes):
        self.nodes = nodes

    async def list(self, resource, namespace, *, type, label_selector, field_selector, on_bad):
        key, _, value = label_selector.partition("=")
        items = [one for one in self.nodes if not key or one.metadata.labels.get(key) == value]
        return ObjectList(items, "5")

    async def watch(self, *args, **kwargs):
        await asyncio.Event().wait()
        yield


AGENT = {"nodewright.dev/agent": "true"}
NODES = [
    node("n1", AGENT, "10.1.0.0/24", "192.0.2.1", "ExternalIP"),
    node("host-1", {}, "10.1.1.0/24", "192.0.2.1"),
    node("host-2", {}, "10.1.2.0/24", "192.0.2.2"),
    node("n2", AGENT, "10.1.3.0/24", "192.0.2.2", "ExternalIP"),
    node("stale", AGENT, "10.1.4.0/24", "192.0.2.1", "ExternalIP"),
]


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("host-1", {NodeRoute("10.1.3.0/24", "192.0.2.2")}),
        ("", {NodeRoute("10.1.3.0/24", "192.0.2.2"), NodeRoute("10.1.2.0/24", "192.0.2.2")}),
    ],
    ids=["beside-a-kubelet", "alone"],
)
async def test_routes_leave_a_kubelets_pods_to_its_cni(tmp_path, host, wanted):
    config = load(host_node_name=host, state_dir=str(tmp_path), pod_cidr="10.1.0.0/24", omit_node_labels=[])
    network = Network()
    networking = NodeNetworking(Lister(NODES), Keeper(), network, config)
    task = asyncio.create_task(networking.run())
    try:
        await asyncio.wait_for(network.synced.wait(), 10)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert network.routes == wanted


async def test_a_node_with_other_addresses_than_its_pods_is_not_ready_until_they_agree(tmp_path):
    config = load(state_dir=str(tmp_path), omit_node_labels=[])
    podcidr.remember(config.state, "10.1.0.0/24")
    (config.state / "network" / "ipam").mkdir()
    (config.state / "network" / "ipam" / "10.1.0.7").write_text("uid")
    keeper, network = Keeper(), Network()
    networking = NodeNetworking(Lister(NODES), keeper, network, config)
    task = asyncio.create_task(networking.run())
    try:
        await asyncio.wait_for(network.synced.wait(), 10)
        assert keeper.problems == {"network": None}
        networking._node_changed(node("n1", AGENT, "10.1.7.0/24"))
        assert "10.1.0.0/24, but the node's pod CIDR is 10.1.7.0/24" in keeper.problems["network"]
        networking._node_changed(node("n1", AGENT, "10.1.0.0/24"))
        assert keeper.problems == {"network": None}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
