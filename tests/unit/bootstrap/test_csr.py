"""What is asked for, what is accepted, and when it is renewed."""

from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from nodewright_agent.bootstrap import csr
from nodewright_agent.bootstrap.csr import CertificateRefused, SigningRequest
from nodewright_agent.bootstrap.store import IdentityStore
from unit.bootstrap.authorities import NOW, Authority


def request(*conditions, certificate=b"", body=b""):
    return msgspec.convert(
        {
            "metadata": {"name": "node-csr-1"},
            "spec": {"request": body, "signerName": csr.SIGNER},
            "status": {"conditions": list(conditions), "certificate": certificate},
        },
        SigningRequest,
    )


def test_the_request_is_kubelets():
    key = csr.new_key()
    body = csr.request_body("node-csr-1", "n1", key, 3600)
    assert body["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    assert body["spec"]["usages"] == ["digital signature", "client auth"]
    assert body["spec"]["expirationSeconds"] == 3600
    asked = x509.load_pem_x509_csr(body["spec"]["request"])
    assert asked.is_signature_valid
    assert asked.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    assert not list(asked.extensions)  # a client certificate of the signer may have no alternative names
    assert "expirationSeconds" not in csr.request_body("x", "n1", key, None)["spec"]


def test_names_follow_key_and_purpose():
    key = csr.new_key()
    name = csr.request_name(key, "bootstrap")
    assert name == csr.request_name(csr.read_key(csr.key_pem(key)), "bootstrap")
    assert name not in (csr.request_name(key, "renewal"), csr.request_name(csr.new_key(), "bootstrap"))


def test_an_existing_request_is_ours_only_with_our_key_and_signer():
    key = csr.new_key()
    body = csr.request_body("x", "n1", key, None)["spec"]["request"]
    assert csr.asks_for(request(body=body), key)
    assert not csr.asks_for(request(body=body), csr.new_key())
    assert not csr.asks_for(request(body=b"nonsense"), key)
    other = request(body=body)
    other.spec.signer_name = "kubernetes.io/kube-apiserver-client"
    assert not csr.asks_for(other, key)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (request({"type": "Denied", "reason": "Policy", "message": "not today"}), "was denied: Policy: not today"),
        (request({"type": "Approved"}, {"type": "Failed", "reason": "SignerValidationFailure"}), "failed: SignerVal"),
        (request({"type": "Denied"}), "was denied: no reason is given"),
    ],
)
def test_refusals_say_why(found, text):
    with pytest.raises(CertificateRefused, match=f"CertificateSigningRequest node-csr-1 {text}"):
        csr.outcome(found)


def test_a_request_waits_until_it_is_signed():
    assert csr.outcome(request()) is None
    assert csr.outcome(request({"type": "Approved"})) is None
    assert not csr.approved(request())
    assert csr.approved(request({"type": "Approved"}))
    assert csr.outcome(request({"type": "Approved"}, certificate=b"pem")) == b"pem"


@pytest.mark.parametrize(
    ("given", "at", "text"),
    [
        ({}, NOW, ""),
        ({}, NOW - timedelta(days=1), ""),  # a clock that is behind does not matter here: the API server judges
        ({"name": "system:node:n2"}, NOW, "it is for system:node:n2 (system:nodes), not for system:node:n1"),
        ({"groups": ()}, NOW, "it is for system:node:n1 (), not for"),
        ({"groups": ("system:masters",)}, NOW, "not for system:node:n1 (system:nodes)"),
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, NOW, "it is not for authenticating clients"),
        ({"usage": None}, NOW, "it is not for authenticating clients"),
        ({}, NOW + timedelta(days=100), "it expired at 2026-08-09T12:00:00Z"),
    ],
)
def test_certificates_that_are_not_ours_are_found_out(given, at, text):
    authority, key = Authority(), csr.new_key()
    leaf = authority.issue(key.public_key(), **given)
    said = csr.fault([leaf], key, "n1", [authority.certificate], at)
    assert (text in said) if text else (said == "")


def test_the_key_and_the_authority_must_fit():
    authority, key = Authority(), csr.new_key()
    leaf = authority.issue(key.public_key())
    namesake = Authority()
    assert csr.fault([leaf], csr.new_key(), "n1", [], NOW) == "it does not belong to the key"
    assert "not the cluster's authority" in csr.fault([leaf], key, "n1", [namesake.certificate], NOW)
    assert csr.fault([leaf], key, "n1", [namesake.certificate, authority.certificate], NOW) == ""
    assert csr.fault([leaf], key, "n1", [], NOW) == ""  # nobody knows the authorities yet


def test_renewal_is_spread_over_70_to_90_percent():
    leaf = Authority().issue(csr.new_key().public_key(), life=timedelta(days=100))
    assert csr.renewal_time(leaf, 0.0) == NOW + timedelta(days=70)
    assert csr.renewal_time(leaf, 0.5) == NOW + timedelta(days=80)
    assert csr.renewal_time(leaf, 1.0) == NOW + timedelta(days=90)


def test_other_keys_are_refused():
    key = rsa.generate_private_key(65537, 2048)
    with pytest.raises(ValueError, match="no key on an elliptic curve"):
        csr.read_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own words
        csr.read_key(b"")


def test_the_store_keeps_both_in_one_private_file(tmp_path):
    store = IdentityStore(tmp_path / "pki")
    assert store.load() is None
    key = store.pending_key()
    assert csr.key_pem(store.pending_key()) == csr.key_pem(key)  # the next agent finds it
    (waiting,) = (tmp_path / "pki").iterdir()
    assert waiting.stat().st_mode & 0o777 == 0o600
    store.save(key, Authority().issue_pem(key.public_key()))
    (file,) = (tmp_path / "pki").iterdir()
    assert file == store.current
    assert file.stat().st_mode & 0o777 == 0o600
    loaded = store.load()
    assert csr.key_pem(loaded.key) == csr.key_pem(key)
    assert loaded.leaf.public_key() == key.public_key()
    file.write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"kubelet-client-current\.pem"):
        store.load()


def test_a_broken_waiting_key_is_replaced(tmp_path):
    store = IdentityStore(tmp_path)
    (tmp_path / "kubelet-client.key.tmp").write_text("cut of")
    assert csr.key_pem(store.pending_key()) == csr.key_pem(store.pending_key())
    store.forget_pending()
    assert list(tmp_path.iterdir()) == []
