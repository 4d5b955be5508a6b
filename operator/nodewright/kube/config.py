"""Where the API server is and how to prove who we are: the connection settings of a Client.

`load` looks, in this order, at the path given, $KUBECONFIG, the in-cluster ServiceAccount, and ~/.kube/config.
A Pod may be told another way to the API server than the Service `kubernetes`, which somebody has to make work first.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from multidict import CIMultiDict

from nodewright.kube.credentials import CertificateSource, TokenSource
from nodewright.kube.errors import ConfigError

__all__ = ["Config", "ConfigError", "in_cluster", "load"]

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER = "NODEWRIGHT_API_SERVER"
"""Environment variable: the API server's https URL, instead of the Service that every Pod is told of."""
SERVER_FROM = "NODEWRIGHT_API_SERVER_FROM"
"""Environment variable: a kubeconfig whose server is used in the same way; nothing else of it is."""


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

    def with_certificate(self, cert: Path, key: Path) -> Config:
        """Give the settings for the same server with the identity of a client certificate (PEM files) instead."""
        if self._tls is None:
            raise ConfigError(f"{self.server}: a client certificate needs https")
        return Config(
            self.server,
            tls=self._tls.with_certificate(cert, key),
            namespace=self.namespace,
            server_hostname=self.server_hostname,
            proxy_url=self.proxy_url,
        )

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
    told = any(os.environ.get(name) for name in (SERVER, SERVER_FROM, "KUBERNETES_SERVICE_HOST"))
    if told and (SERVICE_ACCOUNT_DIR / "token").exists():
        return in_cluster()
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return load_files([default], context)
    raise ConfigError(
        "no cluster configuration: no kubeconfig was named, KUBECONFIG is not set, this is no Pod, "
        f"and there is no {default}"
    )


def in_cluster(directory: Path | None = None) -> Config:
    """Build the configuration that every Pod is given. The token is read again as it rotates.

    Token and authority are always the ServiceAccount's, in ``directory`` (by default where the kubelet mounts it). The
    server is that of $NODEWRIGHT_API_SERVER, else of the kubeconfig that $NODEWRIGHT_API_SERVER_FROM names, else the
    Service `kubernetes`. Raises ConfigError naming the variable, the file and the field.
    """
    directory = directory or SERVICE_ACCOUNT_DIR
    server, hostname, proxy = _pod_server()
    token, ca = directory / "token", directory / "ca.crt"
    for path in (token, ca):
        if not path.exists():
            raise ConfigError(f"{path}: no such file; is automountServiceAccountToken off?")
    try:
        namespace = (directory / "namespace").read_text().strip() or "default"
    except OSError:
        namespace = "default"
    return Config(
        server,
        tls=CertificateSource(ca=ca),
        token=TokenSource.from_file(token),
        namespace=namespace,
        server_hostname=hostname or None,
        proxy_url=proxy or None,
    )


def _pod_server() -> tuple[str, str, str]:
    """Return the server's URL, the name that its certificate must have (empty: the URL's), and a proxy's URL."""
    if server := os.environ.get(SERVER):
        return _checked(server, SERVER), "", ""
    if name := os.environ.get(SERVER_FROM):
        from nodewright.kube.kubeconfig import server_of

        try:
            found = server_of(Path(name))
        except ConfigError as error:
            raise ConfigError(f"{SERVER_FROM}: {error}") from None
        return _checked(found.server, f"{SERVER_FROM}: {found.field}"), found.tls_server_name, found.proxy_url
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigError("not in a Pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    return (f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"), "", ""


def _checked(server: str, where: str) -> str:
    """Return the URL. The ServiceAccount's token goes there: over TLS, or not at all."""
    try:
        parts = urlsplit(server)
        good = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or brackets without an address
        good = False
    if not good or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{where}: not an https URL such as https://192.0.2.1:6443: {server!r}")
    return server
