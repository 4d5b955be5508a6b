"""Where streams lead to: which pod, which container, which network."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest

from nodewright.kube.objects import Container, ObjectMeta, Pod, PodSpec
from nodewright_agent.pods.model import Instance, PodState
from nodewright_agent.pods.static.manifest import MIRROR
from nodewright_agent.pods.streams import AgentStreams, RuntimeContainer, SandboxPorts
from nodewright_agent.runtime.errors import ContainerStateError
from nodewright_agent.server.streaming.backend import StreamError


def pod(uid: str, name: str = "p", **annotations: str) -> Pod:
    meta = ObjectMeta(name=name, namespace="ns", uid=uid, annotations=annotations)
    return Pod(meta, PodSpec(containers=[Container("c")]))


class Lab:
    """A manager with one worker, and a runtime that knows its container."""

    def __init__(self) -> None:
        self.state, self.running = PodState(), True
        self.state.add(Instance(id="id-0", name="c", attempt=0, state="exited"))
        self.state.add(Instance(id="id-1", name="c", attempt=1, state="running"))
        self.items = [pod("u")]
        self.cached: list[Pod] = []
        manager = SimpleNamespace(
            workers={"u": SimpleNamespace(state=self.state)}, cache=SimpleNamespace(values=lambda: self.cached)
        )
        runtime = SimpleNamespace(find=lambda cid: SimpleNamespace(id=cid, running=self.running and cid == "id-1"))
        sandboxes = SimpleNamespace(get=lambda uid: SimpleNamespace(net="/net") if uid == "u" else None)
        self.streams = AgentStreams(manager, runtime, sandboxes, lambda: self.items)


def test_a_pod_by_its_name():
    lab = Lab()
    lab.items = [pod("old"), pod("other", "q"), pod("new")]
    found = lab.streams.pod("ns", "p")
    assert found is not None
    assert found.metadata.uid == "new"
    assert lab.streams.pod("ns", "none") is None
    assert lab.streams.pod("other", "p") is None


def test_the_uid_of_a_static_pod_is_also_its_mirrors():
    lab = Lab()
    lab.cached = [pod("mirror", **{MIRROR: "x"}), pod("of-another", "q", **{MIRROR: "x"}), pod("no-mirror")]
    uids = ("u", "mirror", "of-another", "no-mirror", "")
    assert [lab.streams.has_uid(lab.items[0], uid) for uid in uids] == [True, True, False, False, False]


def test_a_container_that_runs():
    lab = Lab()
    assert lab.streams.container(lab.items[0], "c") is not None
    assert lab.streams.container(lab.items[0], "d") is None
    assert lab.streams.container(pod("unknown"), "c") is None
    lab.running = False
    assert lab.streams.container(lab.items[0], "c") is None


def test_a_pod_without_a_sandbox_has_no_network():
    lab = Lab()
    assert lab.streams.ports(lab.items[0]) is not None
    assert lab.streams.ports(pod("unknown")) is None


async def test_what_the_runtime_refuses_is_told():
    async def fails(*_, **__):
        raise ContainerStateError("container id-1 is not running")

    container = RuntimeContainer(SimpleNamespace(stream=fails, attach=fails, exec=fails), "id-1")
    for call in (container.exec(["x"], None), container.attach(None), container.output(["x"])):
        with pytest.raises(StreamError, match="container id-1 is not running"):
            await call


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_a_port_of_the_hosts_network(family, address):
    """Whether it listens at IPv4 or at IPv6."""
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip(f"this host has no {address}")
        listener.listen()
        port = listener.getsockname()[1]
        connection = await SandboxPorts("p", "u", None).connect(port)
        with connection, listener.accept()[0] as other:
            await asyncio.get_running_loop().sock_sendall(connection, b"x")
            assert other.recv(1) == b"x"


async def test_a_port_where_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(StreamError, match=rf"localhost:{port} .* IPv4: dial 127.0.0.1:{port}: connection refused"):
            await SandboxPorts("p", "u", None).connect(port)


async def test_a_network_that_is_gone(tmp_path):
    with pytest.raises(StreamError, match=r"IPv4: dial 127.0.0.1:80: no such file or directory"):
        await SandboxPorts("p", "u", str(tmp_path / "gone")).connect(80)
