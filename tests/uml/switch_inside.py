"""Switching from and to IPVS while traffic flows. Runs inside user-mode Linux, by test_uml_proxy.py.

That kernel has IPVS but no NAT by nf_tables. `Dnat` stands in for the nftables backend: it translates in the same hooks
and leaves the same entries in conntrack, by iptables' old interface; what is tested is the IPVS side of a switch.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from integration.proxy.packet_cases import BOTH, VIP, slices
from integration.proxy.proxy_lab import NODE, POD_CIDRS, PODS, Lab, inside
from nodewright_agent.proxy.backends import make_backend
from nodewright_agent.proxy.backends.base import BackendOptions
from nodewright_agent.proxy.backends.ipvs.backend import LINK
from nodewright_agent.proxy.backends.ipvs.schedulers import probe_scheduler
from nodewright_agent.proxy.cleanup import remove_others
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.proxy.detect import probe_ipvs
from nodewright_agent.proxy.health import Health
from nodewright_agent.proxy.metrics import ProxyMetrics
from nodewright_agent.proxy.model import Delta, Table, is_ipv6, pack_address, unpack_address
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.switching import ModeSwitch
from nodewright_agent.proxy.sync import Syncer
from nodewright_agent.proxy.table import TableBuilder
from nodewright_agent.proxy.wishes import SCHEDULER, Wish, Wishes
from unit.proxy.proxy_objects import service


@pytest.fixture(scope="session", autouse=True)
def modules() -> None:
    subprocess.run(["modprobe", "-a", "ip_vs", "ip_vs_rr", "br_netfilter", "veth", "bridge"], check=True)
    subprocess.run(["modprobe", "dummy", "numdummies=0"], check=True)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        for number in PODS:
            made.serve(number)
        yield made
    finally:
        made.close()


class Dnat:
    """Translates ClusterIPs in PREROUTING and OUTPUT, like the nftables backend, and nothing more."""

    name = "nftables"
    _chain = "TEST-DNAT"

    def _run(self, *words: str, check: bool = True) -> str:
        argv = ["iptables-legacy", "-w", "-t", "nat", *words]
        return subprocess.run(argv, check=check, capture_output=True, text=True).stdout

    def open(self) -> None: ...

    def replace(self, table: Table) -> None:
        self.cleanup()
        self._run("-N", self._chain)
        for key, frontend in table.frontends.items():
            if is_ipv6(key):
                continue
            ends = sorted(unpack_address(each[:-2]) for each in frontend.endpoints)
            protocol, port = {6: "tcp", 17: "udp"}[key[-3]], str(int.from_bytes(key[-2:], "big"))
            self._run(
                *("-A", self._chain, "-d", unpack_address(key[:-3]), "-p", protocol, "--dport", port),
                *("-j", "DNAT", "--to-destination", f"{ends[0]}-{ends[-1]}:8080"),
            )
        for hook in ("PREROUTING", "OUTPUT"):
            self._run("-A", hook, "-j", self._chain)
        self._run("-A", "POSTROUTING", "-m", "conntrack", "--ctstate", "DNAT", "-j", "MASQUERADE")

    def apply(self, delta: Delta) -> None:
        raise AssertionError("nothing changes here")

    def verify(self) -> list[str]:
        return []

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        return lambda: None

    def upkeep(self) -> float | None:
        return None

    def cleanup(self) -> None:
        for hook in ("PREROUTING", "OUTPUT"):
            self._run("-D", hook, "-j", self._chain, check=False)
        self._run("-D", "POSTROUTING", "-m", "conntrack", "--ctstate", "DNAT", "-j", "MASQUERADE", check=False)
        self._run("-F", self._chain, check=False)
        self._run("-X", self._chain, check=False)

    def close(self) -> None: ...


def make(name: str, options: BackendOptions) -> Any:
    return Dnat() if name == "nftables" else make_backend(name, options)


class Client(threading.Thread):
    """Connects again and again, from outside and from the node itself, and notes what failed."""

    def __init__(self, lab: Lab, *origins: str) -> None:
        super().__init__(daemon=True)
        self.origins = origins
        self.lab, self.failures, self.answers = lab, [], 0
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.is_set():
            for origin in self.origins:
                try:
                    self.lab.tcp(origin, VIP, 80, timeout=2)
                    self.answers += 1
                except OSError as error:
                    self.failures.append(f"{origin}: {error}")

    def stop(self) -> None:
        self._ended.set()
        self.join()
        assert self.failures == []
        assert self.answers > 10


class Running:
    """A syncer with what chooses its backend, in the lab's node."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.wishes, self.events = lab, Wishes(), []
        self.builder = TableBuilder(NodeView("here", "", (pack_address(NODE),), POD_CIDRS))
        item = service(ports=BOTH)
        self.builder.set_service(item.key, item)
        for each in slices(*PODS):
            self.builder.set_slice(each.key, None, each)
        probes = {"ipvs": probe_ipvs, "nftables": lambda: None}
        config = ProxyConfig("here", "nftables", ",".join(POD_CIDRS))
        self.modes = ModeSwitch(config, self.wishes, lambda *event: self.events.append(event), probes=probes, make=make)

    async def want(self, wish: Wish) -> Any:
        answered = asyncio.Event()
        self.wishes.on_answer(answered.set)
        self.wishes.want(wish)
        async with asyncio.timeout(60):
            await answered.wait()
        return self.wishes.answer

    async def gone(self, check: Callable[[], bool]) -> None:
        """Wait until the old mode's rules are gone."""
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(check):  # noqa: ASYNC110 - the kernel announces nothing
                await asyncio.sleep(0.1)

    def ipvs(self) -> bool:
        return VIP in self.lab.run("node", "ipvsadm", "-Sn") or LINK in self.lab.run("node", "ip", "link")

    def nftables(self) -> bool:
        return "TEST-DNAT" in self.lab.run("node", "iptables-legacy", "-t", "nat", "-S")

    @asynccontextmanager
    async def serving(self, wish: Wish) -> AsyncIterator[None]:
        self.wishes.want(wish)
        backend = await self.modes.first()
        syncer = Syncer(self.builder, backend, health=Health(lambda: 0.0), metrics=ProxyMetrics())
        await syncer.open()
        tasks = [asyncio.create_task(syncer.run()), asyncio.create_task(self.modes.follow(syncer))]
        try:
            await syncer.wait_synced()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await syncer.call(syncer.backend.cleanup)
            await syncer.close()


def play(lab: Lab, wish: Wish, story: Callable[[Running], Any]) -> None:
    """Run a story in a loop whose threads are all born in the node's network namespace."""

    async def main() -> None:
        running = Running(lab)
        async with running.serving(wish):
            await story(running)

    with inside(lab.path("node")):
        asyncio.run(main())


def test_to_ipvs_and_back_loses_no_connection_attempt(lab: Lab) -> None:
    async def story(running: Running) -> None:
        assert running.nftables()
        held, _ = await asyncio.to_thread(lab.connect, "client", VIP, 80)
        udp = await asyncio.to_thread(lab.udp_socket, "client", VIP, 53)
        client, own = Client(lab, "client"), Client(lab, "node")
        await asyncio.sleep(0.5)
        with held, udp:
            answer = await running.want(Wish("ipvs", None, "c"))
            assert (answer.choice.mode, answer.problems) == ("ipvs", {})
            await running.gone(lambda: not running.nftables())
            assert running.ipvs()
            held.sendall(b"still there")
            assert held.recv(100) == b"still there", "conntrack goes on translating"
            udp.send(b"?")
            assert udp.recv(100)
            await asyncio.sleep(0.5)
            # What the node opens while it has the ClusterIP as an address of its own, has that as its source, and
            # ends when IPVS is left (docs/service-proxy.md).
            own.stop()
            answer = await running.want(Wish("nftables", None, "c"))
            assert (answer.choice.mode, answer.problems) == ("nftables", {})
            await running.gone(lambda: not running.ipvs())
            assert running.nftables()
            udp.send(b"?")
            assert udp.recv(100)
            await asyncio.sleep(0.5)
        client.stop()
        assert "NODEWRIGHT" not in lab.run("node", "iptables-legacy", "-t", "nat", "-S")
        assert [reason for _, reason, _ in running.events] == ["ProxyModeSwitched", "ProxyModeSwitched"]

    play(lab, Wish(), story)


def test_a_flow_of_datagrams_through_ipvs_goes_on(lab: Lab) -> None:
    async def story(running: Running) -> None:
        udp = await asyncio.to_thread(lab.udp_socket, "client", VIP, 53)
        with udp:
            udp.send(b"?")
            assert udp.recv(100)
            await running.want(Wish("nftables"))
            await running.gone(lambda: not running.ipvs())
            udp.send(b"?")
            assert udp.recv(100)

    play(lab, Wish("ipvs"), story)


def test_a_connection_through_ipvs_lives_until_it_ends(lab: Lab) -> None:
    """IPVS alone can translate it, so its rules stay until then, without taking new connections."""

    async def story(running: Running) -> None:
        held, _ = await asyncio.to_thread(lab.connect, "client", VIP, 80)
        with held:
            await running.want(Wish("nftables"))
            await asyncio.sleep(6)  # looked at every five seconds
            held.sendall(b"still there")
            assert held.recv(100) == b"still there"
            listed = lab.run("node", "ipvsadm", "-Ln")
            assert "Masq    0" in listed
            assert "Masq    1" not in listed
            assert lab.servers_seen("client", VIP, 80, 12).total() == 12, "new ones go another way"
        await running.gone(lambda: not running.ipvs())

    play(lab, Wish("ipvs"), story)


def test_another_scheduler_while_connections_are_open(lab: Lab) -> None:
    async def story(running: Running) -> None:
        held, _ = await asyncio.to_thread(lab.connect, "client", VIP, 80)
        client = Client(lab, "client", "node")
        with held:
            answer = await running.want(Wish("ipvs", "sh"))
            assert (answer.scheduler, answer.problems) == ("sh", {})
            assert "-s sh" in lab.run("node", "ipvsadm", "-Sn")
            held.sendall(b"still there")
            assert held.recv(100) == b"still there"
            assert len(set(lab.servers_seen("client", VIP, 80, 10))) == 1, "by source hash: always the same"
            answer = await running.want(Wish("ipvs", "nosuch"))
            assert answer.scheduler == "sh"
            assert "nosuch cannot be used" in answer.problems[SCHEDULER]
            await asyncio.sleep(0.3)
        client.stop()

    play(lab, Wish("ipvs", "rr"), story)


def test_the_trial_of_a_scheduler_leaves_nothing(lab: Lab) -> None:
    with inside(lab.path("node")):
        assert probe_scheduler("rr") is None
        assert probe_scheduler("nosuch") is not None
    assert lab.run("node", "ipvsadm", "-Sn") == ""


def test_what_a_former_process_in_another_mode_left_is_removed(lab: Lab) -> None:
    async def story(running: Running) -> None:
        assert running.ipvs()
        assert await asyncio.to_thread(remove_others, "ipvs") == [], "it is in use"
        assert running.ipvs()
        assert await asyncio.to_thread(remove_others, "nftables") != []
        assert not running.ipvs()

    play(lab, Wish("ipvs"), story)
