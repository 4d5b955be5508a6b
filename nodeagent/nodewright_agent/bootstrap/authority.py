"""Who issues the cluster's client certificates: what kube-apiserver publishes for extension servers.

The ConfigMap kube-system/extension-apiserver-authentication (key client-ca-file) is readable by Role
extension-apiserver-authentication-reader; it is kept in a file, for the kubelet API's TLS and for starts without an
API server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, ConfigError, Forbidden
from nodewright.kube.objects import ConfigMap
from nodewright.kube.resources import CONFIGMAPS
from nodewright_agent.runtime.images.fsutil import write_atomically

log = logging.getLogger(__name__)

NAMESPACE, NAME, KEY = "kube-system", "extension-apiserver-authentication", "client-ca-file"
LOOK = 3.0
"""Seconds that a start waits for the newest authorities before it goes on with the ones it remembers."""


class ClientAuthority:
    """The authorities of client certificates, current in a file."""

    def __init__(self, directory: Path) -> None:
        """The file is ``directory/client-ca.crt``."""
        self.file = directory / "client-ca.crt"
        self.known = asyncio.Event()
        """Set once the file is there."""
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called when the authorities have become others."""
        self._listeners.append(listener)

    def certificates(self) -> list[x509.Certificate]:
        """Return the authorities as far as they are known; empty when they are not."""
        try:
            return x509.load_pem_x509_certificates(self.file.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read, it is fetched anew: %s", self.file, error)
            return []

    async def load(self, client: Client) -> None:
        """Take what the cluster says now, or, when it does not answer soon, what it said last."""
        try:
            async with asyncio.timeout(LOOK):
                self._take(await client.get(CONFIGMAPS, NAME, NAMESPACE, type=ConfigMap))
        except Forbidden as error:
            log.warning("%s; Role %s/%s-reader allows it", error, NAMESPACE, NAME)
        except (ApiError, ConfigError, OSError) as error:
            said = str(error) or f"no answer in {LOOK:.0f} s"
            log.warning("ConfigMap %s/%s cannot be read now: %s", NAMESPACE, NAME, said)
        if self.certificates():
            self.known.set()

    async def run(self, client: Client) -> None:
        """Follow changes until cancelled."""
        cache: WatchCache[ConfigMap] = WatchCache(
            client,
            CONFIGMAPS,
            type=ConfigMap,
            namespace=NAMESPACE,
            field_selector=f"metadata.name={NAME}",
            name="client authorities",
        )
        cache.add_handler(lambda old, new: self._take(new))
        await cache.run()

    def _take(self, found: ConfigMap | None) -> None:
        text = found.data.get(KEY, "") if found is not None else ""
        try:
            if not x509.load_pem_x509_certificates(text.encode()):
                raise ValueError("it is empty")
        except ValueError as error:
            # An API server without --client-ca-file: it would not know our certificate either.
            log.error("ConfigMap %s/%s has no usable %s, nothing is changed: %s", NAMESPACE, NAME, KEY, error)
            return
        if self.file.exists() and self.file.read_text() == text:
            self.known.set()
            return
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.file, text.encode(), mode=0o644)
        self.known.set()
        for listener in self._listeners:
            listener()
