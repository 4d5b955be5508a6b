"""kubeconfig files: reading, merging by client-go's rules (the first file that names an entry wins), validation."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from nodewright.kube.config import Config
from nodewright.kube.credentials import CertificateSource, Pem, TokenSource
from nodewright.kube.errors import ConfigError
from nodewright.kube.execplugin import API_VERSIONS, ExecPlugin, resolve_command


class _Kebab(msgspec.Struct, rename="kebab"):
    """kubeconfig spells most fields with hyphens."""


class _Cluster(_Kebab):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class _ExecEnv(msgspec.Struct):
    name: str
    value: str = ""


class _Exec(msgspec.Struct, rename="camel"):
    command: str
    api_version: str
    args: list[str] | None = None
    env: list[_ExecEnv] | None = None
    interactive_mode: str = "IfAvailable"
    provide_cluster_info: bool = False
    install_hint: str = ""


class _User(_Kebab):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    username: str = ""
    password: str = ""
    exec: _Exec | None = None
    auth_provider: dict[str, Any] | None = None
    as_: str = msgspec.field(default="", name="as")
    as_uid: str = ""
    as_groups: list[str] = []
    as_user_extra: dict[str, list[str]] = {}


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _File(_Kebab):
    current_context: str = ""
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


def load_files(paths: list[Path], context: str | None = None) -> Config:
    """Read and merge the files, and build the configuration of one context (the current one by default)."""
    files = [(path, _read_file(path)) for path in paths]
    shown = ", ".join(str(path) for path in paths)
    found, where, cluster = _choose(files, shown, context)
    if found.user:
        home, user = _find(shown, "users", found.user, [(p, e.name, e.user) for p, f in files for e in f.users or []])
    else:
        home, user = where, _User()
    return _build(cluster, where, found.cluster, user, home, found.user, found.namespace or "default")


class Server(msgspec.Struct, frozen=True):
    """Where a kubeconfig says that the API server is; `field` names the place in the file, for messages."""

    server: str
    tls_server_name: str
    proxy_url: str
    field: str


def server_of(path: Path) -> Server:
    """Read only the server of a kubeconfig's current context: its authority and user need not be there."""
    found, _, cluster = _choose([(path, _read_file(path))], str(path), None)
    field = f"{path}: clusters[{found.cluster}].server"
    return Server(cluster.server, cluster.tls_server_name, cluster.proxy_url, field)


_E = TypeVar("_E")


def _choose(files: list[tuple[Path, _File]], shown: str, context: str | None) -> tuple[_Context, Path, _Cluster]:
    """Give the context, and the cluster that it names with the file that has it."""
    name = context or next((f.current_context for _, f in files if f.current_context), "")
    if not name:
        raise ConfigError(f"{shown}: current-context is not set, and no context was named")
    _, found = _find(shown, "contexts", name, [(p, e.name, e.context) for p, f in files for e in f.contexts or []])
    where, cluster = _find(
        shown, "clusters", found.cluster, [(p, e.name, e.cluster) for p, f in files for e in f.clusters or []]
    )
    return found, where, cluster


def _find(shown: str, section: str, name: str, entries: list[tuple[Path, str, _E]]) -> tuple[Path, _E]:
    for path, entry_name, entry in entries:
        if entry_name == name:
            return path, entry
    raise ConfigError(f"{shown}: {section}: there is no entry named {name!r}")


def _read_file(path: Path) -> _File:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    try:
        return msgspec.convert(_parse(path, data), _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None


def _parse(path: Path, data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        pass  # YAML, then; its parser is only loaded where it is needed
    try:
        import yaml
    except ImportError:
        raise ConfigError(f"{path}: not JSON, and reading YAML needs the package pyyaml") from None
    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None


def _build(
    cluster: _Cluster, where: Path, cluster_name: str, user: _User, home: Path, user_name: str, namespace: str
) -> Config:
    at = f"{where}: clusters[{cluster_name}]"
    parts = urlsplit(cluster.server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{at}.server: not a http(s) URL: {cluster.server!r}")
    if cluster.proxy_url and urlsplit(cluster.proxy_url).scheme not in ("http", "https"):
        raise ConfigError(f"{at}.proxy-url: only http and https proxies are supported: {cluster.proxy_url!r}")
    ca = _pem(at, where, "certificate-authority", cluster.certificate_authority, cluster.certificate_authority_data)
    if cluster.insecure_skip_tls_verify and ca is not None:
        raise ConfigError(f"{at}: insecure-skip-tls-verify and a certificate-authority exclude each other")
    mine = f"{home}: users[{user_name}]"
    cert = _pem(mine, home, "client-certificate", user.client_certificate, user.client_certificate_data)
    key = _pem(mine, home, "client-key", user.client_key, user.client_key_data)
    if (cert is None) != (key is None):
        raise ConfigError(f"{mine}: client-certificate and client-key go together")
    if user.auth_provider is not None:
        raise ConfigError(f"{mine}.auth-provider: no longer supported (as in Kubernetes since 1.26); use exec")
    plugin = _plugin(mine, user.exec, home, cluster, ca) if user.exec else None
    return Config(
        cluster.server,
        tls=CertificateSource(ca=ca, cert=cert, key=key, verify=not cluster.insecure_skip_tls_verify, plugin=plugin),
        token=_token(user, home, plugin),
        namespace=namespace,
        server_hostname=cluster.tls_server_name or None,
        proxy_url=cluster.proxy_url or None,
        extra_headers=_extra_headers(user),
    )


def _pem(at: str, base: Path, field: str, path: str, data: str) -> Pem | None:
    """Inline data win over a file, as in client-go."""
    if data:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ConfigError(f"{at}.{field}-data: not base64: {error}") from None
    if path:
        full = base.parent / path
        if not full.is_file():
            raise ConfigError(f"{at}.{field}: no such file: {full}")
        return full
    return None


def _plugin(at: str, spec: _Exec, home: Path, cluster: _Cluster, ca: Pem | None) -> ExecPlugin:
    if spec.api_version not in API_VERSIONS:
        raise ConfigError(f"{at}.exec.apiVersion: {spec.api_version!r} is not one of {', '.join(API_VERSIONS)}")
    if spec.interactive_mode not in ("Never", "IfAvailable", "Always"):
        raise ConfigError(f"{at}.exec.interactiveMode: {spec.interactive_mode!r} is not Never, IfAvailable or Always")
    info: dict[str, object] | None = None
    if spec.provide_cluster_info:
        info = {"server": cluster.server, "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify}
        if ca is not None:
            pem = ca.read_bytes() if isinstance(ca, Path) else ca
            info["certificate-authority-data"] = base64.b64encode(pem).decode()
        if cluster.tls_server_name:
            info["tls-server-name"] = cluster.tls_server_name
    return ExecPlugin(
        resolve_command(spec.command, home.parent),
        spec.args or [],
        env={entry.name: entry.value for entry in spec.env or []},
        api_version=spec.api_version,
        interactive=spec.interactive_mode,
        cluster_info=info,
        install_hint=spec.install_hint,
    )


def _token(user: _User, home: Path, plugin: ExecPlugin | None) -> TokenSource | None:
    if user.token_file:  # wins over `token`, as in client-go
        return TokenSource.from_file(home.parent / user.token_file)
    if user.token:
        return TokenSource(value=user.token)
    return TokenSource(plugin=plugin) if plugin else None


def _extra_headers(user: _User) -> tuple[tuple[str, str], ...]:
    """Basic authentication, for the proxies that still ask for it, and impersonation."""
    headers: list[tuple[str, str]] = []
    if user.username and not (user.token or user.token_file):
        pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        headers.append(("Authorization", f"Basic {pair}"))
    if user.as_:
        headers.append(("Impersonate-User", user.as_))
        headers += [("Impersonate-Group", group) for group in user.as_groups]
        if user.as_uid:
            headers.append(("Impersonate-Uid", user.as_uid))
        headers += [(f"Impersonate-Extra-{key}", v) for key, values in user.as_user_extra.items() for v in values]
    return tuple(headers)
