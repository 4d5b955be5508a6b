"""Where the node's key and certificate lie: `state_dir/pki`, as kubelet keeps them, readable for root only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from nodewright_agent.bootstrap import csr
from nodewright_agent.runtime.images.fsutil import write_atomically


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and its certificate, the latter with what the signer put after it."""

    key: csr.Key
    chain: tuple[x509.Certificate, ...]

    @classmethod
    def read(cls, key: csr.Key, pem: bytes) -> Identity:
        """Read the certificates of a PEM file. Raises ValueError."""
        return cls(key, tuple(x509.load_pem_x509_certificates(pem)))

    @property
    def leaf(self) -> x509.Certificate:
        """The node's own certificate."""
        return self.chain[0]


class IdentityStore:
    """The files of one node's identity. Each is replaced in one rename."""

    def __init__(self, directory: Path) -> None:
        """Nothing is made before something is stored."""
        self.current = directory / "kubelet-client-current.pem"
        """Certificate and key in one file, so that nobody can see one without the other."""
        self._pending = directory / "kubelet-client.key.tmp"
        self._directory = directory

    def load(self) -> Identity | None:
        """Read what is stored; None where nothing is. Raises ValueError and OSError naming the file."""
        try:
            pem = self.current.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return Identity.read(csr.read_key(pem), pem)
        except ValueError as error:
            raise ValueError(f"{self.current}: {error}") from None

    def save(self, key: csr.Key, certificate: bytes) -> None:
        """Store a new identity, and forget the key that waited for it."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.current, certificate.rstrip() + b"\n" + csr.key_pem(key))
        self.forget_pending()

    def pending_key(self) -> csr.Key:
        """Return the key of the request under way, or make one: a restarted agent goes on with its old request."""
        try:
            return csr.read_key(self._pending.read_bytes())
        except (FileNotFoundError, ValueError):
            key = csr.new_key()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._pending, csr.key_pem(key))
        return key

    def forget_pending(self) -> None:
        """Give up the key of a request that came to nothing."""
        self._pending.unlink(missing_ok=True)
