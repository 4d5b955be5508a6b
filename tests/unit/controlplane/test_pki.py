from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from nodewright.controlplane import certificates, pki
from nodewright.controlplane.certificates import Certificates
from nodewright.controlplane.layout import Layout
from nodewright.controlplane.pki import LeafSpec, Pair, Subject
from nodewright.controlplane.state import ClusterState, Ports

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = LeafSpec(Subject("system:node:n1", ("system:nodes",)), server=True, client=True, sans=("n1", "10.0.0.1"))


def make_state(nodes: int = 0) -> ClusterState:
    return ClusterState(
        name="t", slot=0, nodes=nodes, ports=Ports(1, 2, 3, 4, 5, 6), node_cidr="10.180.0.0/24",
        pod_cidr="10.200.0.0/16", service_cidr="10.96.0.0/16", kubernetes="v1.36.3", etcd="v3.6.8",
    )  # fmt: skip


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.ensure_authority(Pair.at(tmp_path, "ca"), "test-ca", NOW)[0]


def read(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.cert.read_bytes())


def test_leaf_carries_identity_usages_and_names(tmp_path: Path, authority: pki.Authority) -> None:
    pair = Pair.at(tmp_path, "leaf")
    assert pki.ensure_leaf(pair, SPEC, authority, NOW)
    cert = read(pair)
    assert cert.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    cert.verify_directly_issued_by(authority.cert)
    usages = list(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["n1", "10.0.0.1"]
    assert pair.key.stat().st_mode & 0o777 == 0o600
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair.cert, pair.key)


def test_a_good_leaf_is_kept_and_an_ageing_one_renewed(tmp_path: Path, authority: pki.Authority) -> None:
    pair = Pair.at(tmp_path, "leaf")
    pki.ensure_leaf(pair, SPEC, authority, NOW)
    first = read(pair)
    almost = NOW + pki.LEAF_LIFETIME - pki.RENEW_BEFORE
    assert not pki.ensure_leaf(pair, SPEC, authority, almost)
    assert pki.ensure_leaf(pair, SPEC, authority, almost + timedelta(seconds=1))
    assert read(pair).serial_number != first.serial_number


def test_a_leaf_never_outlives_its_authority_and_is_not_renewed_in_vain(
    tmp_path: Path, authority: pki.Authority
) -> None:
    late = NOW + pki.CA_LIFETIME - timedelta(days=10)
    pair = Pair.at(tmp_path, "leaf")
    assert pki.ensure_leaf(pair, SPEC, authority, late)
    assert read(pair).not_valid_after_utc == authority.cert.not_valid_after_utc
    assert not pki.ensure_leaf(pair, SPEC, authority, late + timedelta(days=1))


@pytest.mark.parametrize(
    "changed",
    [
        LeafSpec(Subject("other", ("system:nodes",)), server=True, client=True, sans=SPEC.sans),
        LeafSpec(SPEC.subject, server=True, sans=SPEC.sans),
        LeafSpec(SPEC.subject, server=True, client=True, sans=("n1", "10.0.0.2")),
    ],
)
def test_a_leaf_that_does_not_match_any_more_is_made_anew(
    tmp_path: Path, authority: pki.Authority, changed: LeafSpec
) -> None:
    pair = Pair.at(tmp_path, "leaf")
    pki.ensure_leaf(pair, SPEC, authority, NOW)
    assert pki.ensure_leaf(pair, changed, authority, NOW)


@pytest.mark.parametrize("damage", ["no key", "no cert", "other key", "garbage", "truncated", "other authority"])
def test_half_made_or_damaged_pairs_are_made_anew(tmp_path: Path, authority: pki.Authority, damage: str) -> None:
    pair, other = Pair.at(tmp_path, "leaf"), Pair.at(tmp_path, "other")
    pki.ensure_leaf(pair, SPEC, authority, NOW)
    pki.ensure_leaf(other, SPEC, authority, NOW)
    match damage:
        case "no key":
            pair.key.unlink()
        case "no cert":
            pair.cert.unlink()
        case "other key":
            pair.key.write_bytes(other.key.read_bytes())
        case "garbage":
            pair.cert.write_text("not a certificate")
        case "truncated":
            pair.key.write_bytes(pair.key.read_bytes()[:40])
        case "other authority":
            authority, _ = pki.ensure_authority(Pair.at(tmp_path, "ca2"), "test-ca", NOW)
    assert pki.ensure_leaf(pair, SPEC, authority, NOW)
    read(pair).verify_directly_issued_by(authority.cert)


def test_the_whole_set_is_made_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "t")
    certs = Certificates(layout, make_state(), NOW)
    made = certs.ensure()
    assert {"ca", "etcd-ca", "front-proxy-ca", "sa", "apiserver", "etcd-server", "user-admin"} <= made
    assert certs.ensure() == set()
    authorities = {read(certs.pair(name)).fingerprint(hashes.SHA256()) for name in certificates.AUTHORITIES}
    assert len(authorities) == 3
    assert layout.pki.stat().st_mode & 0o777 == 0o700
    for key in layout.pki.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    for conf in layout.kubeconfig("x").parent.iterdir():
        assert conf.stat().st_mode & 0o777 == 0o600


def test_a_lost_authority_renews_everything_it_signed_and_nothing_else(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "t")
    certs = Certificates(layout, make_state(), NOW)
    certs.ensure()
    certs.pair("etcd-ca").key.unlink()
    assert certs.ensure() == {"etcd-ca", "etcd-server", "etcd-peer", "apiserver-etcd-client"}


def test_only_the_admin_is_in_system_masters() -> None:
    groups = {user: subject.organizations for user, subject in certificates.USERS.items()}
    assert [user for user, names in groups.items() if "system:masters" in names] == ["admin"]


def test_apiserver_answers_under_every_name_that_is_used() -> None:
    sans = certificates.leaves(make_state(nodes=2))["apiserver"][1].sans
    assert {"127.0.0.1", "10.180.0.1", "10.96.0.1", "kubernetes.default.svc", "localhost"} <= set(sans)


def test_node_certificates_and_kubeconfig(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "t")
    state = make_state(nodes=2)
    certs = Certificates(layout, state, NOW)
    certs.ensure()
    made = certs.ensure_nodes(state.node_hosts())
    assert made == {f"node-t-node{i}-{kind}" for i in (1, 2) for kind in ("client", "server")}
    client, server = (read(certs.pair(f"node-t-node1-{kind}")) for kind in ("client", "server"))
    assert client.subject.rfc4514_string() == "CN=system:node:t-node1,O=system:nodes"
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["t-node1", "10.180.0.11"]
    assert '"server": "https://10.180.0.1:1"' in layout.kubeconfig("node-t-node1").read_text()
