"""A node gets, keeps, renews and replaces its certificate, with the real signer and approver."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodewright.kube.client import Client
from nodewright.kube.config import in_cluster
from nodewright.kube.errors import Forbidden
from nodewright.kube.resources import CONFIGMAPS, NODES, SECRETS, SERVICES
from nodewright_agent import config as settings
from nodewright_agent.bootstrap import csr, request
from nodewright_agent.bootstrap.clients import connect
from nodewright_agent.bootstrap.csr import NotAnswered
from nodewright_agent.bootstrap.store import IdentityStore
from support.agent_node import wait_until

pytestmark = pytest.mark.needs_cluster


@pytest.fixture
def config(tmp_path):
    name = f"n-{uuid.uuid4().hex[:8]}"
    return settings.load(None, node_name=name, node_ip="192.0.2.1", bootstrap=True, state_dir=str(tmp_path / "state"))


def account():
    """A client as the ServiceAccount."""
    return Client(in_cluster())


async def who(client):
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
    user = json.loads(await client.request("POST", path, body=body))["status"]["userInfo"]
    return user["username"], user["groups"]


def requests_for(kubectl, node_name):
    """The cluster's requests whose subject is this node."""
    found = []
    for item in json.loads(kubectl("get", "csr", "-o", "json"))["items"]:
        subject = x509.load_pem_x509_csr(base64.b64decode(item["spec"]["request"])).subject
        if subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == f"system:node:{node_name}":
            found.append(item)
    return sorted(found, key=lambda item: int(item["metadata"]["resourceVersion"]))


async def until(what, predicate):
    return await asyncio.to_thread(wait_until, what, predicate, 20.0, 0.1)


async def test_a_service_account_becomes_the_node(as_account, config, kubectl):
    as_account()
    async with connect(config) as clients:
        name, groups = await who(clients.node)
        assert name == f"system:node:{config.node_name}"
        assert "system:nodes" in groups
        assert (await who(clients.cluster))[0].startswith("system:serviceaccount:kube-system:agent-")
        await clients.node.create(NODES, {"metadata": {"name": config.node_name}})
        with pytest.raises(Forbidden):  # NodeRestriction: only its own
            await clients.node.create(NODES, {"metadata": {"name": f"not-{config.node_name}"}})
        await clients.cluster.list(SERVICES)
        with pytest.raises(Forbidden):
            await clients.cluster.list(SECRETS)
        with pytest.raises(Forbidden):
            await clients.cluster.get(CONFIGMAPS, "kube-root-ca.crt", "kube-system")
        pem = clients.identity.store.current
        assert pem.stat().st_mode & 0o777 == 0o600
        assert not list(pem.parent.glob("*.tmp"))
        assert clients.identity.authority.known.is_set()
        first = pem.read_bytes()
    made = requests_for(kubectl, config.node_name)
    assert [item["spec"]["signerName"] for item in made] == [csr.SIGNER]
    assert made[0]["spec"]["usages"] == ["digital signature", "client auth"]

    async with connect(config) as clients:  # the next agent goes on with it
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"
        assert clients.identity.store.current.read_bytes() == first
    assert len(requests_for(kubectl, config.node_name)) == 1


async def test_the_node_renews_by_itself(as_account, config, kubectl):
    as_account()
    async with connect(config) as clients:
        old = IdentityStore(config.state / "pki").load()
        await clients.identity.renew(clients.node)
        new = IdentityStore(config.state / "pki").load()
        assert new.leaf.serial_number != old.leaf.serial_number
        assert new.leaf.public_key() != old.leaf.public_key()
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"
    by = [item["spec"]["username"] for item in requests_for(kubectl, config.node_name)]
    assert by[0].startswith("system:serviceaccount:")
    assert by[1] == f"system:node:{config.node_name}"


async def test_a_shorter_life_can_be_asked_for(as_account, config):
    as_account()
    config.certificate_seconds = 600
    async with connect(config) as clients:
        leaf = clients.identity.store.load().leaf
        assert timedelta(seconds=600) <= leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(seconds=960)
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"


async def test_renewal_is_due_before_the_end(as_account, config):
    as_account()
    async with connect(config) as clients:
        identity = clients.identity
        first = identity.store.load().leaf
        begin, end = first.not_valid_before_utc, first.not_valid_after_utc
        due = begin + (end - begin) * 0.92
        now = [due.timestamp()]
        identity._clock = lambda: now[0]
        keeper = asyncio.create_task(identity.run(clients.node, clients.cluster))
        try:
            second = await until("renewed", lambda: _other(identity, first))
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        assert second.not_valid_after_utc >= end


def _other(identity, first):
    leaf = identity.store.load().leaf
    return leaf if leaf.serial_number != first.serial_number else None


def stored(layout, name, *, group="system:nodes", begin=-30, end=300, foreign=False):
    """A certificate as the cluster's authority (or one of the same name) would have issued it, with its key."""
    pki = layout.pki
    authority = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    key, now = csr.new_key(), datetime.now(UTC)
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    leaf = (
        x509.CertificateBuilder(authority.subject, x509.Name(subject), key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begin))
        .not_valid_after(now + timedelta(days=end))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(csr.new_key() if foreign else signer, hashes.SHA256())
    )
    return key, leaf.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({}, None),
        ({"end": -1}, "it expired at"),
        ({"name": "system:node:somebody-else"}, "not for system:node:"),
        ({"group": "system:masters"}, "not for system:node:"),
        ({"foreign": True}, "not the cluster's authority"),
    ],
    ids=["good", "expired", "other-node", "other-group", "other-authority"],
)
async def test_what_is_on_disk_is_used_only_when_it_is_good(
    as_account, config, controller_manager, kubectl, caplog, case, reason
):
    caplog.set_level("INFO")
    as_account()
    given = {"name": f"system:node:{config.node_name}", **case}
    key, pem = stored(controller_manager.layout, **given)
    store = IdentityStore(config.state / "pki")
    store.save(key, pem)
    before = store.load().leaf
    async with connect(config) as clients:
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"
    asked = len(requests_for(kubectl, config.node_name))
    assert (store.load().leaf == before) is (reason is None)
    assert asked == (0 if reason is None else 1)
    assert reason is None or reason in caplog.text


async def test_a_denied_request_is_told_and_followed_by_another(as_account, config, kubectl, caplog):
    as_account(approved=False)
    connecting = connect(config)
    opening = asyncio.create_task(connecting.__aenter__())
    try:
        (first,) = await until("asked", lambda: requests_for(kubectl, config.node_name))
        assert "conditions" not in first["status"]
        await asyncio.to_thread(kubectl, "certificate", "deny", first["metadata"]["name"])
        both = await until(
            "asked again",
            lambda: requests_for(kubectl, config.node_name)[1:] and requests_for(kubectl, config.node_name),
        )
        assert f"CertificateSigningRequest {first['metadata']['name']} was denied: KubectlDeny" in caplog.text
        second = next(item for item in both if item["metadata"]["name"] != first["metadata"]["name"])
        await asyncio.to_thread(kubectl, "certificate", "approve", second["metadata"]["name"])
        clients = await asyncio.wait_for(opening, 20)
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"
    finally:
        if not opening.done():
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        else:
            await connecting.__aexit__(None, None, None)


async def test_a_restarted_agent_goes_on_with_its_request(as_account, config, kubectl):
    as_account(approved=False)
    connecting = connect(config)
    opening = asyncio.create_task(connecting.__aenter__())
    (asked,) = await until("asked", lambda: requests_for(kubectl, config.node_name))
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await asyncio.to_thread(kubectl, "certificate", "approve", asked["metadata"]["name"])
    async with connect(config) as clients:
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"
    assert len(requests_for(kubectl, config.node_name)) == 1


async def test_a_node_gets_no_certificate_of_another(as_account, config, kubectl):
    as_account()
    async with connect(config) as clients:
        other = f"{config.node_name}-other"
        with pytest.raises(Forbidden, match=f"can only create a node CSR with CN=system:node:{config.node_name}"):
            await request.obtain(clients.node, other, csr.new_key(), "renewal")
    assert requests_for(kubectl, other) == []


async def test_a_request_that_nobody_answers_says_who_could(as_account, config, kubectl, monkeypatch, caplog):
    monkeypatch.setattr(request, "PATIENCE", 0.5)
    monkeypatch.setattr(request, "WAIT", 1.5)
    directory = as_account(approved=False)
    store = IdentityStore(config.state / "pki")
    async with account() as client:
        for _ in range(2):
            with pytest.raises(NotAnswered, match="is not approved after 2 s"):
                await request.obtain(client, config.node_name, store.pending_key(), "bootstrap")
    (left,) = requests_for(kubectl, config.node_name)  # the second try went on with the first one's request
    assert f"kubectl certificate approve {left['metadata']['name']}" in caplog.text
    assert "ClusterRole system:certificates.k8s.io:certificatesigningrequests:nodeclient" in caplog.text
    assert left["spec"]["username"] in caplog.text
    assert (directory / "token").read_text() not in caplog.text


async def test_a_request_for_no_node_fails_even_when_approved(as_account, config, kubectl, monkeypatch):
    as_account()
    monkeypatch.setattr(csr, "user_name", lambda name: f"admin-{name}")
    async with account() as client:
        asking = asyncio.create_task(request.obtain(client, config.node_name, key := csr.new_key(), "bootstrap"))
        name = csr.request_name(key, "bootstrap")
        await until("asked", lambda: name in kubectl("get", "csr", "-o", "name"))
        await asyncio.to_thread(kubectl, "certificate", "approve", name)
        with pytest.raises(csr.CertificateRefused, match=f"{name} failed: SignerValidationFailure"):
            await asyncio.wait_for(asking, 20)


async def test_a_bootstrap_token_is_needed_only_once(controller_manager, kubectl, config, tmp_path):
    number, secret = uuid.uuid4().hex[:6], uuid.uuid4().hex[:16]
    meta = {"name": f"bootstrap-token-{number}", "namespace": "kube-system"}
    data = {"token-id": number, "token-secret": secret, "usage-bootstrap-authentication": "true"}
    body = {"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "metadata": meta}
    kubectl("create", "-f", "-", stdin=json.dumps({**body, "stringData": data}))
    ca = str(controller_manager.layout.pki / "ca.crt")
    content = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": controller_manager.server, "certificate-authority": ca}}],
        "users": [{"name": "u", "user": {"token": f"{number}.{secret}"}}],
    }
    config.bootstrap, config.bootstrap_kubeconfig = False, str(tmp_path / "bootstrap.kubeconfig")
    (tmp_path / "bootstrap.kubeconfig").write_text(json.dumps(content))
    async with connect(config) as clients:
        assert clients.cluster is clients.node
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"
        await clients.cluster.list(SERVICES)
    (made,) = requests_for(kubectl, config.node_name)
    assert made["spec"]["username"] == f"system:bootstrap:{number}"
    kubectl("delete", "secret", meta["name"], "-n", "kube-system")
    async with connect(config) as clients:
        assert not clients.identity.authority.known.is_set()  # a token may not read them,
        follower = asyncio.create_task(clients.identity.run(clients.node, clients.cluster))
        async with asyncio.timeout(20):
            await clients.identity.authority.known.wait()  # nodes may
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        await clients.identity.renew(clients.node)
        assert (await who(clients.node))[0] == f"system:node:{config.node_name}"
