"""A serving certificate of the node's own, for where nobody gave one (as kubelet makes without rotation).

The API server accepts it only when it was started without --kubelet-certificate-authority.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodewright.kube import x509parts

VALID = timedelta(days=365)


def ensure(directory: Path, node_name: str, addresses: list[str]) -> tuple[Path, Path]:
    """Return certificate and key files below ``directory``, made when they are missing or about to expire."""
    cert_file, key_file = directory / "kubelet.crt", directory / "kubelet.key"
    if _good(cert_file) and key_file.exists():
        return cert_file, key_file
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{node_name}@nodewright")])
    now = datetime.now(UTC)
    names = [x509.DNSName(node_name), *map(x509parts.general_name, addresses)]
    certificate = (
        x509parts.builder(name, name, key.public_key(), now - timedelta(minutes=5), now + VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return cert_file, key_file


def _good(cert_file: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=30)
