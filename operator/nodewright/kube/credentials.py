"""Credentials that change while we run: certificate files, token files, exec plugins."""

from __future__ import annotations

import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nodewright.kube.errors import ConfigError
from nodewright.kube.execplugin import ExecPlugin

_RECHECK = 5.0  # seconds between looks at a certificate's files; a look is three stat calls
_TOKEN_TTL = 60.0  # client-go reads a token file again after a minute

Pem = Path | bytes


class CertificateSource:
    """TLS settings from files or inline PEM. Files are watched by identity, so that rotation needs no restart."""

    def __init__(
        self,
        *,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        verify: bool = True,
        plugin: ExecPlugin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the parts; `plugin` may bring a client certificate later. Nothing is read before `context()`."""
        self._ca, self._cert, self._key = ca, cert, key
        self._verify = verify
        self._plugin = plugin
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._identity: object = None
        self._checked = 0.0

    def context(self) -> ssl.SSLContext:
        """Give the current settings; a new object after a change, so that connections are made anew.

        A broken file raises ConfigError at first, and later leaves the settings as they were: rotation writes
        certificate and key one after the other.
        """
        now = self._clock()
        pair = self._plugin.certificate if self._plugin else None
        if self._context is not None and now - self._checked < _RECHECK and (pair is None or pair in self._seen()):
            return self._context
        self._checked = now
        identity = (_identity(self._ca), _identity(self._cert), _identity(self._key), pair)
        if self._context is not None and identity == self._identity:
            return self._context
        try:
            self._context = self._build(pair)
            self._identity = identity
        except (OSError, ssl.SSLError, ValueError) as error:
            if self._context is None:
                raise ConfigError(f"{self._describe()}: {error}") from error
        return self._context

    def with_certificate(self, cert: Pem, key: Pem) -> CertificateSource:
        """Give a source that trusts the same authority and shows this certificate."""
        return CertificateSource(ca=self._ca, cert=cert, key=key, verify=self._verify, clock=self._clock)

    def _seen(self) -> tuple[object, ...]:
        return self._identity if isinstance(self._identity, tuple) else ()

    def _describe(self) -> str:
        parts = [str(p) for p in (self._ca, self._cert, self._key) if isinstance(p, Path)]
        return "TLS settings" + (f" ({', '.join(parts)})" if parts else "")

    def _build(self, pair: tuple[bytes, bytes] | None) -> ssl.SSLContext:
        if self._ca is None:
            context = ssl.create_default_context()
        else:  # only the cluster's own authority is trusted, not the system's
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=_read(self._ca).decode("ascii", "replace"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if hasattr(ssl, "VERIFY_X509_STRICT"):
            # Python 3.13 turned this on; cluster authorities often lack the extensions that it asks for.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        cert, key = pair if pair is not None else (self._cert, self._key)
        if cert is not None and key is not None:
            with as_file(cert) as cert_path, as_file(key) as key_path:
                context.load_cert_chain(cert_path, key_path)
        return context


class TokenSource:
    """A bearer token: fixed, from a file that rotates, or from an exec plugin."""

    def __init__(
        self,
        *,
        value: str = "",
        path: Path | None = None,
        plugin: ExecPlugin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take exactly one of the three."""
        self._value = value
        self._path = path
        self._plugin = plugin
        self._clock = clock
        self._read_at: float | None = None

    @classmethod
    def from_file(cls, path: Path) -> TokenSource:
        """Read the token from a file."""
        return cls(path=path)

    async def token(self) -> str:
        """Give the current token. A file that can't be read any more leaves the last token in use."""
        if self._plugin is not None:
            return await self._plugin.token()
        if self._path is not None and (self._read_at is None or self._clock() - self._read_at > _TOKEN_TTL):
            try:
                self._value = self._path.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                if not self._value:
                    raise ConfigError(f"token file {self._path}: {error}") from error
            self._read_at = self._clock()
        return self._value

    def invalidate(self) -> bool:
        """Ask for a new token the next time; False when the token is fixed."""
        self._read_at = None
        if self._plugin is not None:
            self._plugin.invalidate()
        return self._path is not None or self._plugin is not None


def _read(source: Pem) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source


def _identity(source: Pem | None) -> object:
    if not isinstance(source, Path):
        return None  # inline data never change
    try:
        status = source.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


@contextmanager
def as_file(source: Pem) -> Iterator[str]:
    """Give a path for what the ssl module only reads from files; inline keys stay in memory where Linux lets them."""
    if isinstance(source, Path):
        yield str(source)
        return
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("pem", os.MFD_CLOEXEC)
        try:
            os.write(fd, source)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(source)
        file.flush()
        yield file.name
