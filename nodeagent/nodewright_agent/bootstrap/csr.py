"""Keys, signing requests and certificates of a node, and what a CertificateSigningRequest has come to. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodewright.kube.objects import KubeStruct, ObjectMeta
from nodewright.kube.resources import CSRS

Key = ec.EllipticCurvePrivateKey

SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
GROUP = "system:nodes"
# Key encipherment is for RSA keys only (kubelet's bootstrap.go does the same since 1.27).
USAGES = ["digital signature", "client auth"]


class CertificateRefused(Exception):
    """The cluster will not give the certificate that was asked for, or gave another one; the text says why."""


class NotAnswered(CertificateRefused):
    """Nobody has decided in time; the request is still there."""


class CsrCondition(KubeStruct):
    """Approved, Denied or Failed."""

    type: str = ""
    status: str = "True"
    reason: str = ""
    message: str = ""


class CsrSpec(KubeStruct):
    """What was asked for; `request` is decoded from base64."""

    request: bytes = b""
    signer_name: str = ""
    username: str = ""


class CsrStatus(KubeStruct):
    """How far it is; `certificate` is PEM, decoded from base64."""

    conditions: list[CsrCondition] = []  # noqa: RUF012 - msgspec copies it
    certificate: bytes = b""


class SigningRequest(KubeStruct):
    """The fields of a CertificateSigningRequest that matter here."""

    metadata: ObjectMeta
    spec: CsrSpec = msgspec.field(default_factory=CsrSpec)
    status: CsrStatus = msgspec.field(default_factory=CsrStatus)


def user_name(node_name: str) -> str:
    """Return the user that a node is to the API server."""
    return f"system:node:{node_name}"


def new_key() -> Key:
    """Make a key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    """Write a key as PKCS #8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> Key:
    """Read a key. Raises ValueError where the text holds none on an elliptic curve."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:  # encrypted
        raise ValueError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{type(key).__name__} is no key on an elliptic curve")
    return key


def request_name(key: Key, purpose: str) -> str:
    """Return a name that is the same for the same key and purpose: asking again after a crash finds the request."""
    return f"node-csr-{hashlib.sha256(purpose.encode() + _public(key.public_key())).hexdigest()[:40]}"


def request_body(name: str, node_name: str, key: Key, expiration_seconds: int | None) -> dict[str, Any]:
    """Return the CertificateSigningRequest ``name``; without ``expiration_seconds`` the signer decides on the life."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, GROUP),
            x509.NameAttribute(NameOID.COMMON_NAME, user_name(node_name), _validate=False),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    spec: dict[str, Any] = {
        "request": request.public_bytes(serialization.Encoding.PEM),
        "signerName": SIGNER,
        "usages": USAGES,
    }
    if expiration_seconds is not None:
        spec["expirationSeconds"] = expiration_seconds
    return {
        "apiVersion": CSRS.api_version,
        "kind": CSRS.kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def asks_for(request: SigningRequest, key: Key) -> bool:
    """Tell whether an existing request is for this key and our signer."""
    try:
        parsed = x509.load_pem_x509_csr(request.spec.request)
    except ValueError:
        return False
    return request.spec.signer_name == SIGNER and _public(parsed.public_key()) == _public(key.public_key())


def outcome(request: SigningRequest) -> bytes | None:
    """Return the certificate (PEM), or None while there is none yet. Raises CertificateRefused."""
    for condition in request.status.conditions:
        if condition.type in ("Denied", "Failed") and condition.status == "True":
            said = ": ".join(text for text in (condition.reason, condition.message) if text) or "no reason is given"
            verb = "was denied" if condition.type == "Denied" else "failed"
            raise CertificateRefused(f"CertificateSigningRequest {request.metadata.name} {verb}: {said}")
    return request.status.certificate or None


def approved(request: SigningRequest) -> bool:
    """Tell whether somebody has approved it."""
    return any(condition.type == "Approved" and condition.status == "True" for condition in request.status.conditions)


def fault(
    chain: Sequence[x509.Certificate],
    key: Key,
    node_name: str,
    authorities: Sequence[x509.Certificate],
    now: datetime,
) -> str:
    """Return why the certificate (first of ``chain``) cannot be this node's; empty when it can.

    Without ``authorities`` nobody knows yet who may issue it: then its issuer is not looked at.
    """
    leaf = chain[0]
    names = [str(item.value) for item in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(item.value) for item in leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if names != [user_name(node_name)] or GROUP not in groups:
        return (
            f"it is for {', '.join(names) or 'nobody'} ({', '.join(groups)}), not for {user_name(node_name)} ({GROUP})"
        )
    if _public(leaf.public_key()) != _public(key.public_key()):
        return "it does not belong to the key"
    if not _for_clients(leaf):
        return "it is not for authenticating clients"
    if now >= leaf.not_valid_after_utc:
        return f"it expired at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if authorities and not any(_issued(one, ca) for one in chain for ca in authorities):
        return f"it was issued by {leaf.issuer.rfc4514_string()}, which is not the cluster's authority (any more)"
    return ""


def renewal_time(leaf: x509.Certificate, fraction: float) -> datetime:
    """Return when to renew: ``fraction`` in [0, 1) spreads it over 70 to 90 % of the lifetime, as kubelet does."""
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return begin + (end - begin) * (0.7 + 0.2 * fraction)


def _for_clients(leaf: x509.Certificate) -> bool:
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _public(key: Any) -> bytes:
    data: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data
