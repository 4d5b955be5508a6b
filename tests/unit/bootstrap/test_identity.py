"""The node's identity over time, with a cluster that decides at once and a clock that the test sets."""

import asyncio
import contextlib
from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pytest
from cryptography import x509

from nodewright.kube.backoff import Backoff
from nodewright.kube.codec import WatchEvent
from nodewright.kube.errors import AlreadyExists, Forbidden, NotFound, ServerUnavailable
from nodewright.kube.objects import ConfigMap, ObjectMeta
from nodewright_agent.bootstrap import csr, identity, request
from nodewright_agent.bootstrap.authority import KEY
from nodewright_agent.bootstrap.identity import NodeIdentity
from unit.bootstrap.authorities import NOW, Authority


class Cluster:
    """Requests and the ConfigMap; ``decide(request, user)`` is the approver and signer."""

    def __init__(self, authority):
        self.authority, self.published = authority, [authority]
        self.requests, self.asked = {}, []
        self.decide = lambda found, user: self.sign(found)
        self.away = False
        self.changed = asyncio.Event()

    def sign(self, found, **given):
        key = x509.load_pem_x509_csr(found.spec.request).public_key()
        found.status.certificate = self.authority.issue_pem(key, **given)

    def deny(self, found):
        found.status.conditions = [csr.CsrCondition("Denied", reason="No")]

    def config_map(self):
        return ConfigMap(ObjectMeta(name="x"), {KEY: "".join(one.pem.decode() for one in self.published)})


class Api:
    """One account's client."""

    def __init__(self, cluster, user):
        self.cluster, self.user = cluster, user

    async def create(self, resource, body, *, type):
        if self.cluster.away:
            raise ServerUnavailable(0, "ConnectionFailed", "nobody is there")
        name = body["metadata"]["name"]
        if name in self.cluster.requests:
            raise AlreadyExists(409, "AlreadyExists", name)
        spec = {**body["spec"], "username": self.user}
        found = msgspec.convert({"metadata": {"name": name, "resourceVersion": "1"}, "spec": spec}, type)
        self.cluster.requests[name] = found
        self.cluster.asked.append(self.user)
        self.cluster.decide(found, self.user)
        return found

    async def get(self, resource, name, namespace=None, *, type):
        if self.cluster.away:
            raise ServerUnavailable(0, "ConnectionFailed", "nobody is there")
        if type is ConfigMap:
            return self.cluster.config_map()
        if name not in self.cluster.requests:
            raise NotFound(404, "NotFound", name)
        return self.cluster.requests[name]

    async def watch(self, resource, *, type, field_selector, resource_version, idle_timeout):
        name = field_selector.removeprefix("metadata.name=")
        while True:
            await self.cluster.changed.wait()
            self.cluster.changed.clear()
            kind = "MODIFIED" if name in self.cluster.requests else "DELETED"
            yield WatchEvent(kind, self.cluster.requests.get(name), "2")


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(identity, "Backoff", lambda first, last: Backoff(0.0, 0.0))
    return Cluster(Authority())


@pytest.fixture
def clock():
    return SimpleNamespace(now=NOW.timestamp())


@pytest.fixture
def make(cluster, clock, tmp_path):
    return lambda: NodeIdentity("n1", Api(cluster, "bootstrap"), tmp_path, clock=lambda: clock.now, rand=lambda: 0.5)


def held(node):
    return node.store.load().leaf


@contextlib.asynccontextmanager
async def keeping(node, client, monkeypatch):
    """Run the loop without the watch on the ConfigMap."""
    monkeypatch.setattr(identity, "NAP", 0.005)
    monkeypatch.setattr(node.authority, "run", lambda client: asyncio.Event().wait())
    task = asyncio.create_task(node.run(client, client))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait_for(predicate):
    async with asyncio.timeout(10):
        while not predicate():  # noqa: ASYNC110 - what is waited for is a file
            await asyncio.sleep(0.005)


async def test_a_certificate_of_somebody_else_is_refused(cluster, make, caplog):
    answers = iter([{"name": "system:node:n2"}, {"groups": ("system:masters",)}, {}])
    cluster.decide = lambda found, user: cluster.sign(found, **next(answers))
    node = make()
    await node.ensure()
    assert len(cluster.requests) == 3  # each with a key of its own
    assert csr.fault([held(node)], node.store.load().key, "n1", [cluster.authority.certificate], NOW) == ""
    assert "it is for system:node:n2 (system:nodes), not for system:node:n1" in caplog.text


async def test_an_agent_starts_without_an_api_server_when_it_has_a_certificate(cluster, make):
    first = make()
    await first.ensure()
    cluster.away = True
    second = make()
    await second.ensure()
    assert held(second) == held(first)
    assert second.authority.known.is_set()  # remembered
    assert cluster.asked == ["bootstrap"]


async def test_denials_and_failures_are_tried_again_with_another_key(cluster, make, caplog):
    verdicts = iter([cluster.deny, cluster.deny, cluster.sign])
    cluster.decide = lambda found, user: next(verdicts)(found)
    await make().ensure()
    assert len(cluster.requests) == 3
    assert caplog.text.count("was denied: No") == 2


async def test_a_request_that_disappeared_is_made_again_with_its_key(cluster, make):
    cluster.decide = lambda found, user: None
    node = make()
    task = asyncio.create_task(node.ensure())
    await wait_for(lambda: cluster.requests)
    (name,) = cluster.requests
    cluster.requests.clear()
    cluster.decide = lambda found, user: cluster.sign(found)
    cluster.changed.set()
    await asyncio.wait_for(task, 20)
    assert list(cluster.requests) == [name]


async def test_approval_is_waited_for_by_watch(cluster, make, monkeypatch):
    cluster.decide = lambda found, user: None
    task = asyncio.create_task(make().ensure())
    await wait_for(lambda: cluster.requests)
    cluster.changed.set()  # an event that decides nothing
    await asyncio.sleep(0.05)
    assert not task.done()
    (found,) = cluster.requests.values()
    cluster.sign(found)
    cluster.changed.set()
    await asyncio.wait_for(task, 5)


async def test_renewal_is_due_at_its_time_and_asked_for_by_the_node(cluster, clock, make, monkeypatch):
    node = make()
    await node.ensure()
    first = held(node)
    cluster.decide = lambda found, user: cluster.sign(found, begin=NOW + timedelta(days=80))
    async with keeping(node, Api(cluster, "node"), monkeypatch):
        clock.now = (NOW + timedelta(days=79.9)).timestamp()
        await asyncio.sleep(0.1)
        assert cluster.asked == ["bootstrap"]
        clock.now = (NOW + timedelta(days=80.1)).timestamp()
        await wait_for(lambda: held(node) != first)
    assert cluster.asked == ["bootstrap", "node"]


async def test_where_nodes_may_not_renew_the_account_does(cluster, clock, make, monkeypatch):
    node = make()
    await node.ensure()
    first = held(node)

    def decide(found, user):
        if user == "node":
            raise Forbidden(403, "Forbidden", "nodes may not")
        cluster.sign(found, begin=NOW + timedelta(days=85))

    cluster.decide = decide
    clock.now = (NOW + timedelta(days=85)).timestamp()
    async with keeping(node, Api(cluster, "node"), monkeypatch):
        await wait_for(lambda: held(node) != first)
    assert cluster.asked == ["bootstrap", "node", "bootstrap"]


async def test_an_expired_certificate_is_not_used_to_ask_for_another(cluster, clock, make, monkeypatch):
    node = make()
    await node.ensure()
    first = held(node)
    cluster.decide = lambda found, user: cluster.sign(found, begin=NOW + timedelta(days=101))
    clock.now = (NOW + timedelta(days=101)).timestamp()
    async with keeping(node, Api(cluster, "node"), monkeypatch):
        await wait_for(lambda: held(node) != first)
    assert cluster.asked == ["bootstrap", "bootstrap"]


async def test_other_authorities_make_the_node_ask_anew(cluster, clock, make, monkeypatch):
    node = make()
    await node.ensure()
    first = held(node)
    async with keeping(node, Api(cluster, "node"), monkeypatch):
        cluster.authority = Authority()
        cluster.published.append(cluster.authority)  # both for a while: nothing to do
        node.authority._take(cluster.config_map())
        await asyncio.sleep(0.05)
        assert held(node) == first
        cluster.published = [cluster.authority]
        node.authority._take(cluster.config_map())
        await wait_for(lambda: held(node) != first)
    assert cluster.asked == ["bootstrap", "bootstrap"]
    held(node).verify_directly_issued_by(cluster.authority.certificate)


async def test_an_unusable_config_map_changes_nothing(cluster, make, caplog):
    node = make()
    await node.ensure()
    before = node.authority.file.read_text()
    for data in ({}, {KEY: ""}, {KEY: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}):
        node.authority._take(ConfigMap(ObjectMeta(name="x"), data))
    assert node.authority.file.read_text() == before
    assert caplog.text.count("has no usable client-ca-file") == 3


async def test_who_could_approve_is_told(cluster, make, monkeypatch, caplog):
    monkeypatch.setattr(request, "PATIENCE", 0.01)
    cluster.decide = lambda found, user: None
    task = asyncio.create_task(make().ensure())
    await wait_for(lambda: "kubectl certificate approve" in caplog.text)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "of bootstrap is not approved" in caplog.text
