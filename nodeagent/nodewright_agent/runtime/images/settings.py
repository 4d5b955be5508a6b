"""How registries are reached: mirrors, plain HTTP, CA files. From registries.toml; pure but for reading it.

[registry."docker.io"]
mirrors = ["https://mirror.example:5000"]   # tried in order, before the registry itself

[registry."registry.example:5000"]
plain-http = true           # default: only for localhost and 127.0.0.0/8
ca-file = "/etc/ssl/our-ca.pem"
skip-verify = false
token-hosts = ["auth.internal"]             # hosts that may hand out tokens although they look private
"""

import ipaddress
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from nodewright_agent.runtime.images.reference import DEFAULT_DOMAIN

# Where the images named docker.io/... are served.
DOCKER_ENDPOINT: Final = "registry-1.docker.io"


class SettingsError(ValueError):
    """registries.toml is malformed; the text names file and field."""


class Endpoint(msgspec.Struct, frozen=True):
    """One place to fetch from."""

    base: str  # scheme://host[:port][/prefix], no trailing slash
    ca_file: str | None = None
    skip_verify: bool = False
    token_hosts: frozenset[str] = frozenset()


class _Registry(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    mirrors: list[str] = []
    plain_http: bool | None = None
    ca_file: str | None = None
    skip_verify: bool = False
    token_hosts: list[str] = []


class RegistrySettings:
    """Settings per registry; an empty one has the defaults only."""

    def __init__(self, registries: dict[str, _Registry] | None = None) -> None:
        self._registries = registries or {}

    @classmethod
    def from_dict(cls, document: dict[str, Any], source: str = "registries.toml") -> "RegistrySettings":
        """Check and take a parsed document; raises SettingsError."""
        unknown = set(document) - {"registry"}
        if unknown:
            raise SettingsError(f"{source}: unknown field {min(unknown)!r}")
        try:
            registries = msgspec.convert(document.get("registry", {}), dict[str, _Registry])
        except msgspec.ValidationError as error:
            raise SettingsError(f"{source}: registry: {error}") from None
        for name, entry in registries.items():
            for mirror in entry.mirrors:
                if not mirror.startswith(("https://", "http://")):
                    raise SettingsError(f"{source}: registry.{name}.mirrors: {mirror!r} is not an http(s) URL")
        return cls(registries)

    @classmethod
    def load(cls, path: Path) -> "RegistrySettings":
        """Read a file; a missing one gives the defaults."""
        try:
            return cls.from_dict(tomllib.loads(path.read_text()), str(path))
        except FileNotFoundError:
            return cls()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from None

    def endpoints(self, domain: str) -> list[Endpoint]:
        """Where to fetch images of `domain` from, in order."""
        entry = self._registries.get(domain, _Registry())
        plain = is_loopback(domain) if entry.plain_http is None else entry.plain_http
        host = DOCKER_ENDPOINT if domain == DEFAULT_DOMAIN else domain
        bases = [mirror.rstrip("/") for mirror in entry.mirrors] + [f"{'http' if plain else 'https'}://{host}"]
        return [Endpoint(base, entry.ca_file, entry.skip_verify, frozenset(entry.token_hosts)) for base in bases]


def host_only(authority: str) -> str:
    """`[::1]:5000` → `::1`, `localhost:5000` → `localhost`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def is_loopback(authority: str) -> bool:
    """Whether the host is this machine by name: localhost, 127.0.0.0/8 or ::1."""
    host = host_only(authority)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private_address(host: str) -> bool:
    """Whether the host is a literal address that a registry on the internet has no business naming (I14)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        # Forms that resolvers read as addresses: 2130706433, 0x7f.1, 127.1
        labels = host.split(".")
        return bool(host) and all(label[:2].lower() == "0x" or label.isdigit() for label in labels)
