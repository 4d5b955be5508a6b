"""Certificates of a cluster's authority, made in memory."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodewright_agent.bootstrap import csr

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


class Authority:
    def __init__(self, name="kubernetes"):
        self.key = csr.new_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._sign(self.name, self.key.public_key(), NOW, timedelta(days=3650), [(basic, True)])
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        public_key,
        name="system:node:n1",
        groups=("system:nodes",),
        begin=NOW,
        life=timedelta(days=100),
        usage=ExtendedKeyUsageOID.CLIENT_AUTH,
    ):
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        extensions = [(x509.ExtendedKeyUsage([usage]), False)] if usage is not None else []
        return self._sign(x509.Name(attributes), public_key, begin, life, extensions)

    def issue_pem(self, public_key, **given):
        return self.issue(public_key, **given).public_bytes(serialization.Encoding.PEM)

    def _sign(self, subject, public_key, begin, life, extensions):
        builder = x509.CertificateBuilder(self.name, subject, public_key, x509.random_serial_number())
        builder = builder.not_valid_before(begin).not_valid_after(begin + life)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())
