"""X.509 as the control plane needs it: certificate authorities, leaf certificates, and whether files are still good.

ECDSA P-256 throughout. Keys are written before certificates, each in one rename: after a crash in between, the pair
does not match and is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodewright.controlplane.files import write_atomic
from nodewright.kube import x509parts

CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=90)  # a quarter of the lifetime is left: kubelet rotates between 70 and 90 %
BACKDATE = timedelta(hours=1)  # for clocks of node hosts that run behind

_KeyIdentifier = x509.SubjectKeyIdentifier


@dataclass(frozen=True)
class Subject:
    """Who a certificate is for. `common_name` is the user name, `organizations` the groups."""

    common_name: str
    organizations: tuple[str, ...] = ()

    def name(self) -> x509.Name:
        """As an X.509 name, organizations first as Kubernetes writes it."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in self.organizations]
        return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)])


@dataclass(frozen=True)
class LeafSpec:
    """A certificate to have: whose, what for, and under which names a server answers (DNS names or IPs)."""

    subject: Subject
    client: bool = False
    server: bool = False
    sans: tuple[str, ...] = ()

    def usages(self) -> list[x509.ObjectIdentifier]:
        """The extended key usages."""
        wanted = ((self.client, ExtendedKeyUsageOID.CLIENT_AUTH), (self.server, ExtendedKeyUsageOID.SERVER_AUTH))
        return [oid for on, oid in wanted if on]


@dataclass(frozen=True)
class Pair:
    """Paths of a certificate and its key."""

    cert: Path
    key: Path

    @classmethod
    def at(cls, directory: Path, name: str) -> Pair:
        """The pair `name` in `directory`: name.crt and name.key."""
        return cls(directory / f"{name}.crt", directory / f"{name}.key")


@dataclass(frozen=True)
class Authority:
    """A loaded certificate authority."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_authority(pair: Pair, common_name: str, now: datetime) -> tuple[Authority, bool]:
    """Load the authority at `pair`, or make it where it is absent, half written or expired; True when it made one."""
    loaded = _load(pair)
    if loaded is not None and loaded[0].not_valid_after_utc > now:
        return Authority(*loaded), False
    key = _new_key(pair.key)
    name = Subject(common_name).name()
    public = key.public_key()
    builder = (
        x509parts.builder(name, name, public, now - BACKDATE, now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509parts.key_usage(authority=True), critical=True)
        .add_extension(_KeyIdentifier.from_public_key(public), critical=False)
    )
    cert = builder.sign(key, hashes.SHA256())
    write_atomic(pair.cert, cert.public_bytes(serialization.Encoding.PEM), 0o644)
    return Authority(cert, key), True


def ensure_leaf(pair: Pair, spec: LeafSpec, authority: Authority, now: datetime) -> bool:
    """Make the certificate at `pair` unless a good one is there; True when it made one."""
    loaded = _load(pair)
    if loaded is not None and is_good(loaded[0], spec, authority, now):
        return False
    key = _new_key(pair.key)
    cert = issue(spec, key.public_key(), authority, now)
    write_atomic(pair.cert, cert.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def issue(
    spec: LeafSpec, public_key: ec.EllipticCurvePublicKey, authority: Authority, now: datetime
) -> x509.Certificate:
    """Sign a certificate for `spec`; it never outlives the authority."""
    end = min(now + LEAF_LIFETIME, authority.cert.not_valid_after_utc)
    issuer_id = authority.cert.extensions.get_extension_for_class(_KeyIdentifier).value
    builder = (
        x509parts.builder(spec.subject.name(), authority.cert.subject, public_key, now - BACKDATE, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509parts.key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(spec.usages()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
    )
    if spec.sans:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(map(x509parts.general_name, spec.sans)), critical=False
        )
    return builder.sign(authority.key, hashes.SHA256())


def is_good(cert: x509.Certificate, spec: LeafSpec, authority: Authority, now: datetime) -> bool:
    """Whether `cert` is what `spec` asks for, signed by `authority`, and not near its end."""
    end = cert.not_valid_after_utc
    # an authority near its own end cannot give more time: do not issue anew at every start for nothing
    renew = end - now < RENEW_BEFORE and end != authority.cert.not_valid_after_utc
    if renew or not cert.not_valid_before_utc <= now < end:
        return False
    try:
        cert.verify_directly_issued_by(authority.cert)
        usages = list(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        cert.subject == spec.subject.name()
        and usages == spec.usages()
        and x509parts.alternative_names(cert) == set(spec.sans)
    )


def ensure_signing_keys(private: Path, public: Path) -> bool:
    """The key pair that signs service-account tokens; True when it was made. A new pair voids all tokens."""
    key = _load_key(private)
    made = key is None
    if key is None:
        key = _new_key(private)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if made or not public.is_file() or public.read_bytes() != pem:
        write_atomic(public, pem, 0o644)
    return made


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(path, key.private_bytes(*encoding), 0o600)
    return key


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return key


def _load(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """The pair's certificate and key, None where one is absent, unreadable or belongs to another."""
    key = _load_key(pair.key)
    try:
        cert = x509.load_pem_x509_certificate(pair.cert.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return (cert, key) if key is not None and cert.public_key() == key.public_key() else None
