"""Where the API server is and how to prove who we are: the connection settings of a Client.

`load` looks, in this order, at the path given, $KUBECONFIG, the in-cluster ServiceAccount, and ~/.kube/config.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from multidict import CIMultiDict

from nodewright.kube.credentials import CertificateSource, TokenSource
from nodewright.kube.errors import ConfigError

__all__ = ["Config", "ConfigError", "in_cluster", "load"]

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Config:
    """Connection settings. Credentials that live in files, or come from a plugin, are read again when they change."""

    def __init__(
        self,
        server: str,
        *,
        tls: CertificateSource | None = None,
        token: TokenSource | None = None,
        namespace: str = "default",
        server_hostname: str | None = None,
        proxy_url: str | None = None,
        extra_headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Take the server's URL and, for https, its TLS settings."""
        self.server = server.rstrip("/")
        self.namespace = namespace
        self.server_hostname = server_hostname
        self.proxy_url = proxy_url
        self._tls = tls
        self._token = token
        self._extra_headers = extra_headers

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS settings, rebuilt when a certificate file has changed; None for plain http."""
        if self._tls is None or not self.server.startswith("https:"):
            return None
        return self._tls.context()

    async def headers(self) -> CIMultiDict[str]:
        """Headers that authenticate a request. Runs the exec plugin when its last answer has expired."""
        headers = CIMultiDict(self._extra_headers)
        if self._token is not None:
            token = await self._token.token()
            if token:
                headers["Authorization"] = f"Bearer {token}"
        return headers

    def invalidate(self) -> bool:
        """Forget cached credentials after a 401; tells whether asking again can give others."""
        return self._token is not None and self._token.invalidate()


def load(kubeconfig: str | Path | None = None, context: str | None = None) -> Config:
    """Find and read the configuration. Raises ConfigError that names the file and the field."""
    from nodewright.kube.kubeconfig import load_files

    if kubeconfig is not None:
        return load_files([Path(kubeconfig)], context)
    if variable := os.environ.get("KUBECONFIG"):
        # client-go passes over entries that do not exist, as long as one does
        paths = [Path(part) for part in variable.split(os.pathsep) if part]
        existing = [path for path in paths if path.exists()]
        if not existing:
            raise ConfigError(f"KUBECONFIG: no such file: {variable}")
        return load_files(existing, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT_DIR / "token").exists():
        return in_cluster()
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return load_files([default], context)
    raise ConfigError(
        "no cluster configuration: no kubeconfig was named, KUBECONFIG is not set, this is no Pod, "
        f"and there is no {default}"
    )


def in_cluster(directory: Path = SERVICE_ACCOUNT_DIR) -> Config:
    """Build the configuration that every Pod is given. The token is read again as it rotates."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigError("not in a Pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    token, ca = directory / "token", directory / "ca.crt"
    for path in (token, ca):
        if not path.exists():
            raise ConfigError(f"{path}: no such file; is automountServiceAccountToken off?")
    try:
        namespace = (directory / "namespace").read_text().strip() or "default"
    except OSError:
        namespace = "default"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Config(server, tls=CertificateSource(ca=ca), token=TokenSource.from_file(token), namespace=namespace)
