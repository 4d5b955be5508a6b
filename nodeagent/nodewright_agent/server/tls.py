"""The server's TLS settings: our certificate, the authority of clients, and both of them anew when the files change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

logger = logging.getLogger(__name__)


class ServingTLS:
    """Builds the server's SSLContext. Clients may, but need not show a certificate (they may have a token).

    A certificate of another authority, or one that has expired, ends the handshake.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        """Take the PEM files. Nothing is read before `context()`."""
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._current: ssl.SSLContext | None = None
        self._identity: object = None

    def context(self) -> ssl.SSLContext:
        """Give the context to listen with. Raises OSError or ssl.SSLError when the files can't be used."""
        self._current, self._identity = self._build(), self._look()
        front = self._build()
        # Called for every handshake, with or without a server name: the moment to see whether certificates rotated.
        front.sni_callback = self._choose
        return front

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        identity = self._look()
        if identity != self._identity:
            try:
                self._current = self._build()
                self._identity = identity
                logger.info("serving with renewed certificate files", extra={"cert": str(self._cert)})
            except (OSError, ssl.SSLError) as error:
                # certificate and key are written one after the other; the next handshake looks again
                logger.warning("certificate files %s can't be used yet: %s", self._cert, error)
        if self._current is not None:
            connection.context = self._current

    def _look(self) -> object:
        found = []
        for path in (self._cert, self._key, self._client_ca):
            try:
                status = path.stat() if path is not None else None
            except OSError:
                status = None
            found.append((status.st_ino, status.st_mtime_ns, status.st_size) if status is not None else None)
        return tuple(found)

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context
