"""The nftables backend under the syncer: what others do to our rules is undone, and big tables load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from integration.proxy.proxy_lab import POD_CIDRS, PODS, Lab, inside, pod_ip
from nodewright_agent.proxy.backends.base import BackendOptions
from nodewright_agent.proxy.backends.nftables.backend import NftablesBackend
from nodewright_agent.proxy.backends.nftables.kernel import TransactionError
from nodewright_agent.proxy.backends.nftables.layout import TABLE
from nodewright_agent.proxy.health import Health
from nodewright_agent.proxy.metrics import ProxyMetrics
from nodewright_agent.proxy.model import Delta, Frontend, Kind, Table, endpoint, frontend_key, pack_address
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.sync import Syncer
from nodewright_agent.proxy.table import TableBuilder
from unit.proxy.proxy_objects import endpoint_slice, ready, service

pytestmark = pytest.mark.needs_root
VIP = "10.96.0.10"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        made.serve(PODS[0])
        yield made
    finally:
        made.close()


class InNode(NftablesBackend):
    """The backend, with its sockets in the lab's node."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(BackendOptions(POD_CIDRS))
        self._lab = lab

    def open(self) -> None:
        with inside(self._lab.path("node")):
            super().open()


@pytest.fixture
def backend(lab: Lab) -> Iterator[InNode]:
    made = InNode(lab)
    made.open()
    try:
        yield made
    finally:
        made.cleanup()
        made.close()


class SyncerInNode(Syncer):
    """A syncer whose conntrack socket is in the lab's node, too."""

    lab: Lab

    def _open(self) -> None:
        with inside(self.lab.path("node")):
            super()._open()


@pytest.fixture
async def syncer(lab: Lab) -> AsyncIterator[Syncer]:
    builder = TableBuilder(NodeView("here", pod_cidrs=POD_CIDRS))
    builder.set_service("default/web", service())
    item = endpoint_slice(ready(pod_ip(PODS[0])))
    builder.set_slice(item.key, None, item)
    backend = InNode(lab)
    made = SyncerInNode(builder, backend, health=Health(lambda: 0.0), metrics=(metrics := ProxyMetrics()))
    made.lab = lab
    made.test_metrics = metrics  # type: ignore[attr-defined]
    await made.open()
    task = asyncio.create_task(made.run())
    await made.wait_synced()
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.call(backend.cleanup)
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the kernel
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "vandalism",
    [
        ("flush", "ruleset"),
        ("delete", "table", "ip", TABLE),
        ("flush", "chain", "ip", TABLE, "services"),
        ("flush", "set", "ip", TABLE, "cluster-ips"),
        ("delete", "element", "ip", TABLE, "frontends", "{ 10.96.0.10 . tcp . 80 }"),
        ("delete", "chain", "ip", TABLE, "nat-prerouting"),
        ("add", "rule", "ip", TABLE, "services", "drop"),
    ],
    ids=" ".join,
)
async def test_rules_changed_by_hand_come_back(lab: Lab, syncer: Syncer, vandalism: tuple[str, ...]) -> None:
    assert await asyncio.to_thread(lab.tcp, "client", VIP, 80)
    before = _without_counts(await asyncio.to_thread(lab.run, "node", "nft", "list", "ruleset"))
    restored = syncer.test_metrics.restored._value  # type: ignore[attr-defined]
    await asyncio.to_thread(lab.run, "node", "nft", *vandalism)
    await until(lambda: restored.get() >= 1)
    await until(lambda: _without_counts(lab.run("node", "nft", "list", "ruleset")) == before)
    assert await asyncio.to_thread(lab.tcp, "client", VIP, 80)


def _without_counts(ruleset: str) -> list[str]:
    return sorted(line for line in ruleset.splitlines() if "counter" not in line)


async def test_own_changes_and_those_of_other_tables_do_not_wake_it(lab: Lab, syncer: Syncer) -> None:
    restored = syncer.test_metrics.restored._value  # type: ignore[attr-defined]
    await asyncio.to_thread(lab.run, "node", "nft", "add", "table", "ip", "other")
    await asyncio.to_thread(lab.run, "node", "nft", "delete", "table", "ip", "other")
    # a change of ours that is announced after those proves that they have been read
    await asyncio.to_thread(lab.run, "node", "nft", "flush", "chain", "ip", TABLE, "services")
    await until(lambda: restored.get() == 1)


def big(services: int, endpoints: int) -> Table:
    frontends = {}
    for number in range(services):
        key = frontend_key(bytes((10, 96, number >> 8, number & 255)), 6, 80)
        first = number * endpoints
        ends = tuple(endpoint((0x0AC80000 + first + n).to_bytes(4, "big"), 8080) for n in range(endpoints))
        frontends[key] = Frontend(Kind.CLUSTER_IP, f"default/service-{number}:http", ends)
    return Table(frontends, frozenset(key[:4] for key in frontends), frozenset())


def test_a_thousand_services_load_and_list(lab: Lab, backend: InNode) -> None:
    table = big(1000, 10)
    backend.replace(table)
    assert backend.verify() == []
    text = lab.run("node", "nft", "list", "ruleset")
    assert text.count('comment "default/service-999:http"') == 2
    assert text.count(" . 8080") == 10_000
    assert "chain pick-10 " in text
    assert text.count("chain pick-") == 1, "chains do not grow with services"


def test_a_refused_transaction_changes_nothing_and_says_what(lab: Lab, backend: InNode) -> None:
    table = big(3, 2)
    backend.replace(table)
    key = next(iter(table.frontends))
    lab.run("node", "nft", "flush", "map", "ip", TABLE, "endpoints")
    with pytest.raises(TransactionError, match=r"delete from endpoints: ENOENT"):
        backend.apply(Delta({key: None}))
    backend.replace(table)
    assert backend.verify() == []


def test_verification_sees_what_differs(lab: Lab, backend: InNode) -> None:
    backend.replace(big(3, 2))
    lab.run("node", "nft", "delete", "element", "ip", TABLE, "frontends", "{ 10.96.0.1 . tcp . 80 }")
    lab.run("node", "nft", "add", "element", "ip", TABLE, "frontends", "{ 10.96.9.9 . tcp . 80 : goto pick-2 }")
    assert backend.verify() == ["ip frontends: 1 missing, 1 unknown, 0 different"]


def test_description_names_what_carries_a_frontend(backend: InNode) -> None:
    table = big(2, 3)
    backend.replace(table)
    lines = backend.describe(next(iter(table.frontends)))
    assert f"map ip {TABLE} frontends -> pick-3" in lines
    assert f"map ip {TABLE} endpoints: 3 slots" in lines
    assert backend.describe(frontend_key(pack_address("10.96.9.9"), 6, 1)) == []
