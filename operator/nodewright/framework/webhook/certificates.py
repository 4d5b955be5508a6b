"""The webhook's certificates: what a Secret must hold, and when to make what anew. Pure: the clock is an argument.

The Secret (type kubernetes.io/tls) has

    tls.crt, tls.key   the serving certificate and its key
    ca.crt             the authorities to trust: the current one first, then those that are on their way out
    ca.key             the key of the current authority; whoever reads the Secret can serve as us anyway

Both kinds of certificate are replaced after two thirds of their life, as cert-manager does it. With a new authority
comes a new serving certificate, at once; the old authority stays in ca.crt for `overlap`, which is the time that
all replicas have to change over. ECDSA P-256 throughout.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodewright.kube import x509parts

AUTHORITY_NAME = "nodewright-webhook-ca"
_RENEW_AT = 2 / 3  # of the life
_MOST_OLD = 3  # authorities trusted on; more come only of a Secret deleted again and again


class UnusableMaterial(ValueError):
    """What a Secret holds cannot be served; the message tells why."""


@dataclass(frozen=True)
class Lifetimes:
    """How long certificates are good. `backdate` is for clocks that run behind, and not counted as life."""

    authority: timedelta = timedelta(days=3650)
    serving: timedelta = timedelta(days=90)
    overlap: timedelta = timedelta(minutes=10)
    backdate: timedelta = timedelta(hours=1)


@dataclass(frozen=True)
class Material:
    """All that the Secret holds."""

    authorities: tuple[x509.Certificate, ...]
    authority_key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def bundle(self) -> bytes:
        """The authorities as PEM: what goes into caBundle."""
        return b"".join(cert.public_bytes(serialization.Encoding.PEM) for cert in self.authorities)

    @property
    def chain(self) -> bytes:
        """Serving certificate and key as one PEM text."""
        return self.cert.public_bytes(serialization.Encoding.PEM) + _key_pem(self.key)

    def data(self) -> dict[str, str]:
        """The Secret's data."""
        parts = {
            "tls.crt": self.cert.public_bytes(serialization.Encoding.PEM),
            "tls.key": _key_pem(self.key),
            "ca.crt": self.bundle,
            "ca.key": _key_pem(self.authority_key),
        }
        return {name: base64.b64encode(pem).decode() for name, pem in parts.items()}


def parse(data: Mapping[str, str]) -> Material:
    """Read a Secret's data. Raises UnusableMaterial when a part is absent, broken, or does not belong to the others."""
    try:
        authorities = tuple(x509.load_pem_x509_certificates(_part(data, "ca.crt")))
        cert = x509.load_pem_x509_certificate(_part(data, "tls.crt"))
    except ValueError as error:
        raise UnusableMaterial(f"a certificate cannot be read: {error}") from error
    material = Material(authorities, _load_key(data, "ca.key"), cert, _load_key(data, "tls.key"))
    if material.authority_key.public_key() != authorities[0].public_key():
        raise UnusableMaterial("ca.key does not belong to the first certificate of ca.crt")
    if material.key.public_key() != cert.public_key():
        raise UnusableMaterial("tls.key does not belong to tls.crt")
    if not is_issued_by(cert, authorities[0]):
        raise UnusableMaterial("tls.crt is not signed by the first certificate of ca.crt")
    return material


def plan(
    stored: Material | None, held: Material | None, names: Sequence[str], life: Lifetimes, now: datetime
) -> Material:
    """What the Secret should hold: `stored` itself when it is as it should be.

    `held` is what this process serves: where the Secret is gone, its authority is trusted on, so that replicas can
    change over one by one. `names` are the DNS names and addresses under which we are called.
    """
    if stored is None:
        return _anew(_alive(held.authorities if held else (), now), names, life, now)
    if now >= _renewal(stored.authorities[0], life):
        return _anew(_alive(stored.authorities, now), names, life, now)
    if now >= _renewal(stored.cert, life) or x509parts.alternative_names(stored.cert) != set(names):
        cert, key = _issue(stored.authorities[0], stored.authority_key, names, life, now)
        stored = replace(stored, cert=cert, key=key)
    if len(stored.authorities) > 1 and now >= _end_of_overlap(stored, life):
        stored = replace(stored, authorities=stored.authorities[:1])
    return stored


def next_look(material: Material, life: Lifetimes) -> datetime:
    """When `plan` will have something to do for this material."""
    times = [_renewal(material.authorities[0], life), _renewal(material.cert, life)]
    if len(material.authorities) > 1:
        times.append(_end_of_overlap(material, life))
    return min(times)


def trusts(bundle: bytes, material: Material) -> bool:
    """Whether a caBundle lets the API server accept the serving certificate."""
    try:
        return any(is_issued_by(material.cert, ca) for ca in x509.load_pem_x509_certificates(bundle))
    except ValueError:
        return False


def is_issued_by(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed the certificate."""
    try:
        cert.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _anew(old: tuple[x509.Certificate, ...], names: Sequence[str], life: Lifetimes, now: datetime) -> Material:
    authority, authority_key = _authority(life, now)
    cert, key = _issue(authority, authority_key, names, life, now)
    return Material((authority, *old[:_MOST_OLD]), authority_key, cert, key)


def _authority(life: Lifetimes, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own for every authority: the verifier tries those in a bundle by name, and should try one.
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{AUTHORITY_NAME}-{x509.random_serial_number():x}"[:64])]
    )
    public = key.public_key()
    builder = (
        x509parts.builder(name, name, public, now - life.backdate, now + life.authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509parts.key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(key, hashes.SHA256()), key


def _issue(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    life: Lifetimes,
    now: datetime,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The common name is for people only (64 characters at most); clients look at the alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    end = min(now + life.serving, authority.not_valid_after_utc)
    builder = (
        x509parts.builder(subject, authority.subject, key.public_key(), now - life.backdate, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509parts.key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([x509parts.general_name(name) for name in names]), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256()), key


def _issued_at(cert: x509.Certificate, life: Lifetimes) -> datetime:
    return cert.not_valid_before_utc + life.backdate


def _renewal(cert: x509.Certificate, life: Lifetimes) -> datetime:
    start = _issued_at(cert, life)
    return start + (cert.not_valid_after_utc - start) * _RENEW_AT


def _end_of_overlap(material: Material, life: Lifetimes) -> datetime:
    return _issued_at(material.authorities[0], life) + life.overlap


def _alive(authorities: Sequence[x509.Certificate], now: datetime) -> tuple[x509.Certificate, ...]:
    return tuple(cert for cert in authorities if cert.not_valid_after_utc > now)


def _part(data: Mapping[str, str], name: str) -> bytes:
    try:
        return base64.b64decode(data.get(name) or "", validate=True)
    except binascii.Error as error:
        raise UnusableMaterial(f"{name} is not base64") from error


def _load_key(data: Mapping[str, str], name: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_part(data, name), password=None)
    except (ValueError, TypeError) as error:
        raise UnusableMaterial(f"{name} cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnusableMaterial(f"{name} is no elliptic-curve key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
